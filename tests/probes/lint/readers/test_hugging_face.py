"""Model folders as they are published, under the names of several families and versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Scalar
from driftscope_probes.lint.readers.registry import read, read_text

BARE: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def values(name: str, table: dict[str, Any]) -> dict[str, Scalar]:
    return {one.name: one.value for one in read_text(name, json.dumps(table))}


def config(**more: Any) -> dict[str, Scalar]:
    return values("config.json", {**BARE, **more})


def test_a_folder_that_transformers_wrote(tiny_moe: Path) -> None:
    told = read(tiny_moe)
    assert told.value("model.type") == "qwen3_moe"
    assert told.value("model.experts") == 8
    assert told.value("model.dtype") == told.value("model.stored_dtype") == "bf16"
    assert told.value("model.head_stored") is True
    assert told.value("model.rope_theta") == 10_000
    assert told.value("tokenizer.eos") == "<|im_end|>"
    rope = told.get("model.rope_theta_inside")
    assert rope is not None and rope.where.endswith("config.json: rope_parameters.rope_theta")


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"num_experts": 64}, "model.experts", 64),
        ({"n_routed_experts": 256}, "model.experts", 256),
        ({"num_local_experts": 8}, "model.experts", 8),
        ({"torch_dtype": "float16"}, "model.dtype", "fp16"),
        ({"dtype": "bfloat16"}, "model.dtype", "bf16"),
        ({"topk_method": "noaux_tc"}, "model.router_bias", True),
        ({"linear_num_value_heads": 32}, "model.state_layers", True),
        ({"layer_types": ["mamba", "attention"]}, "model.state_layers", True),
        ({"hybrid_override_pattern": "M-M*-"}, "model.state_layers", True),
        ({"sliding_window": 4096}, "model.sliding_window", 4096),
        ({"attn_logit_softcapping": 50.0}, "model.attention_softcap", 50.0),
        ({"attn_pdrop": 0.1, "resid_pdrop": 0.2}, "model.dropout", 0.2),
        ({"quantization_config": {"quant_method": "FP8"}}, "model.quantization", "fp8"),
        ({"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}, "model.kv_scales", True),
        ({"eos_token_id": [151645, 151643]}, "model.eos", "151643,151645"),
        ({"rope_theta": 5e5}, "model.rope_theta", 5e5),
        ({"rope_parameters": {"rope_theta": 5e5}}, "model.rope_theta", 5e5),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "yarn"}}},
            "model.rope_type",
            "yarn",
        ),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 32768}},
            "model.trained_positions",
            32768,
        ),
        ({"text_config": {"hidden_size": 8, "rope_theta": 7e5}}, "model.rope_theta", 7e5),
    ],
    ids=lambda value: str(value)[:40],
)
def test_one_concept_under_several_names(given: dict[str, Any], name: str, value: Scalar) -> None:
    assert config(**given)[name] == value


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"num_experts": 0}, "model.experts"),
        ({"num_local_experts": 1}, "model.experts"),
        ({"sliding_window": 32768, "use_sliding_window": False}, "model.sliding_window"),
        ({"sliding_window": None}, "model.sliding_window"),
        ({"attention_dropout": 0.0}, "model.dropout"),
        ({"index_topk": None}, "model.sparse_attention"),
        ({"hybrid_override_pattern": "*-*-"}, "model.state_layers"),
        ({"eos_token_id": "</s>"}, "model.eos"),
        ({"rope_parameters": "none"}, "model.rope_theta"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_config_turns_off_is_not_known(given: dict[str, Any], name: str) -> None:
    assert name not in config(**given)


def test_a_generation_config_by_its_content_not_its_name() -> None:
    given = {"transformers_version": "4.51.0", "eos_token_id": [2], "top_k": 20, "top_p": 0.95}
    told = values("anything.json", given)
    assert told == {"defaults.eos": "2", "defaults.top_k": 20, "defaults.top_p": 0.95}


def test_a_generation_config_that_says_not_who_wrote_it() -> None:
    by_hand = {"temperature": 0.7, "do_sample": True}
    assert values("model/generation_config.json", by_hand) == {"defaults.temperature": 0.7}
    with pytest.raises(RequestError, match="Nothing in anything.json"):
        values("anything.json", by_hand)


def test_a_chat_template_that_takes_thinking_out() -> None:
    template = "{%- if '</think>' in content %}{{ content.split('</think>')[-1] }}{%- endif %}"
    told = values("t.json", {"tokenizer_class": "Qwen2Tokenizer", "chat_template": template})
    assert told["tokenizer.strips_thinking"] is True
    plain = values("t.json", {"tokenizer_class": "Qwen2Tokenizer", "chat_template": "{{ x }}"})
    assert "tokenizer.strips_thinking" not in plain
    assert plain["tokenizer.chat_template"] is True


def test_a_template_in_a_file_of_its_own(tiny_moe: Path) -> None:
    template = read(tiny_moe).get("tokenizer.chat_template")
    assert template is not None and template.where == str(tiny_moe / "chat_template.jinja")


def test_an_adapter() -> None:
    given = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["model.lm_head"]}
    told = values("adapter_config.json", {**given, "use_rslora": True})
    assert told["model.adapter_rank"] == 16
    assert told["model.adapter_rslora"] is True
    assert told["model.adapter_targets_head"] is True


def test_damaged_weights_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**BARE, "hidden_size": 8}))
    for damaged in (b"", b"\xff" * 16, b"\x05" + b"\0" * 7 + b"{{{{{"):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        assert read(tmp_path).get("model.stored_dtype") is None


def test_an_index_leads_to_no_file_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**BARE, "hidden_size": 8}))
    header = b'{"lm_head.weight":{"dtype":"F32","shape":[1]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    index = {"weight_map": {"lm_head.weight": "../x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read(folder).get("model.stored_dtype") is None
