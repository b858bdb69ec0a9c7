"""Published models and the commands that serve them: what is healthy gives no finding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from driftscope_probes.lint.base import Settings, lint
from driftscope_probes.lint.readers.registry import read_text
from driftscope_probes.lint.rules.registry import ALL_RULES

#: Keys that a reader asks for, with their published values.
MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Qwen3-8B": {
        **{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096},
        **{"attention_dropout": 0.0, "eos_token_id": 151645, "max_position_embeddings": 40960},
        **{"rope_scaling": None, "rope_theta": 1_000_000, "sliding_window": None},
        **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False},
        **{"transformers_version": "4.51.0"},
    },
    "Llama-2-7b, older than rope_theta": {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096},
        **{"max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "float16"},
        **{"transformers_version": "4.31.0.dev0"},
    },
    "DeepSeek-V3": {
        **{"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]},
        **{"hidden_size": 7168, "n_routed_experts": 256, "num_nextn_predict_layers": 1},
        **{"quantization_config": {"quant_method": "fp8"}, "topk_method": "noaux_tc"},
        **{"rope_theta": 10000, "torch_dtype": "bfloat16", "transformers_version": "4.33.1"},
        "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 4096, "factor": 40},
    },
    "Phi-4-mini": {
        **{"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 3072},
        **{"embd_pdrop": 0.0, "max_position_embeddings": 131072, "sliding_window": 262144},
        **{"original_max_position_embeddings": 4096, "rope_theta": 10000.0},
        **{"rope_scaling": {"type": "longrope"}, "tie_word_embeddings": True},
    },
    "gemma-3-4b": {
        **{"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
        "text_config": {"hidden_size": 2560, "rope_scaling": {"rope_type": "linear"}},
    },
    "gpt-oss-120b": {
        **{"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "hidden_size": 2880},
        **{"num_local_experts": 128, "quantization_config": {"quant_method": "mxfp4"}},
        **{"rope_theta": 150000, "sliding_window": 128, "tie_word_embeddings": False},
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Qwen3-Next-80B": {
        **{"model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"]},
        **{"hidden_size": 2048, "linear_num_value_heads": 32, "num_experts": 512},
        **{"rope_theta": 10_000_000, "torch_dtype": "bfloat16"},
    },
    "Nemotron-3-Nano": {
        **{"model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"]},
        **{"hidden_size": 2688, "hybrid_override_pattern": "MEM*", "n_routed_experts": 128},
        **{"mamba_ssm_cache_dtype": "float32", "rope_theta": 10000, "torch_dtype": "bfloat16"},
    },
}
SERVED: Final[Mapping[str, str]] = {
    "Qwen3-8B": "vllm serve Qwen/Qwen3-8B --generation-config vllm --max-model-len 32768",
    "Phi-4-mini": "vllm serve microsoft/Phi-4-mini-instruct",
    "Qwen3-Next-80B": "vllm serve Qwen/Qwen3-Next-80B-A3B-Instruct -tp 4",
    "Nemotron-3-Nano": "vllm serve nvidia/Nemotron --max-num-seqs 8 --max-model-len 262144",
}
QWEN3_SAMPLING: Final = {
    **{"do_sample": True, "eos_token_id": [151645, 151643], "temperature": 0.6, "top_k": 20},
    "transformers_version": "4.51.0",
}


def folder(model: str) -> Settings:
    return read_text("config.json", json.dumps(MODELS[model]))


def found(known: Settings) -> list[str]:
    return [one.rule for one in lint(known, ALL_RULES)]


@pytest.mark.parametrize("model", MODELS)
def test_a_published_folder_is_healthy(model: str) -> None:
    assert found(folder(model)) == []


@pytest.mark.parametrize("model", SERVED)
def test_and_so_is_a_plain_server_of_it(model: str) -> None:
    assert found(folder(model) + read_text("serve.sh", SERVED[model])) == []


def test_defaults_of_a_model_matter_where_a_server_takes_them() -> None:
    known = folder("Qwen3-8B") + read_text("generation_config.json", json.dumps(QWEN3_SAMPLING))
    assert found(known) == []
    served = read_text("serve.sh", "vllm serve Qwen/Qwen3-8B")
    assert found(known + served) == ["generation-config-sampling"]
