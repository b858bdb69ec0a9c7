"""prime-rl: all sides in one file, or one file per side."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.readers.registry import read_text

WHOLE = """
[model]
name = "a/model"

[trainer.model]
attn = "flash_attention_3"
ep = 8

[trainer.model.quantization]
type = "fp8"

[orchestrator]
max_off_policy_steps = 8

[orchestrator.train.sampling]
temperature = 0.9

[[orchestrator.train.env]]
name = "math"

[inference]
enable_fp32_lm_head = true

[inference.vllm]
dtype = "bfloat16"
tensor_parallel_size = 8
kv_cache_dtype = "fp8"
"""


def settings(name: str, text: str) -> dict[str, Any]:
    return {one.name: one.value for one in read_text(name, text)}


def test_all_sides() -> None:
    assert settings("rl.toml", WHOLE) == {
        "trainer.framework": "prime-rl",
        "trainer.attention": "flash_attention_3",
        "trainer.expert_parallel": 8,
        "trainer.quantization": "fp8",
        "trainer.staleness": 8,
        "sampling.temperature": 0.9,
        "engine.name": "vllm",
        "engine.fp32_head": True,
        "engine.dtype": "bf16",
        "engine.tensor_parallel": 8,
        "engine.kv_cache_dtype": "fp8",
    }


def test_a_file_of_one_side_and_its_own_words() -> None:
    trainer = "[model]\nattn = 'sdpa'\nep = 4\n\n[model.lora]\nrank = 8\n\n[optim]\nlr = 1e-6\n"
    found = {one.name: one for one in read_text("train.toml", trainer)}
    assert found["trainer.expert_parallel"].value == 4
    assert found["trainer.lora_rank"].where == "train.toml: model.lora.rank"
    inference = "[model]\nenforce_eager = true\n\n[parallel]\ntp = 2\n"
    assert settings("infer.toml", inference) == {
        "trainer.framework": "prime-rl",
        "engine.name": "vllm",
        "engine.eager": True,
        "engine.tensor_parallel": 2,
    }


@pytest.mark.parametrize(
    "text",
    ["[tool.ruff]\nline-length = 100\n", "[model]\nname = 'x'\n", "[trainer]\nlr = 1\n"],
)
def test_other_toml_is_not_read(text: str) -> None:
    with pytest.raises(RequestError, match="understood"):
        read_text("some.toml", text)
