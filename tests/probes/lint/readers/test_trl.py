"""TRL: YAML, JSON, a command line and Python come to the same settings; Python is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.readers.registry import read_text

ARGUMENTS = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "num_generations": 8,
    "temperature": 0.9,
    "top_p": 0.95,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "bf16": True,
    "vllm_importance_sampling_correction": False,
    "vllm_importance_sampling_mode": "token_truncate",
}
EXPECTED = {
    "engine.name": "vllm",
    "engine.logprobs_mode": "processed_logprobs",
    "sampling.temperature": 0.9,
    "sampling.top_p": 0.95,
    "trainer.clip_low": 0.2,
    "trainer.clip_high": 0.28,
    "trainer.dtype": "bf16",
    "trainer.correction": "off",  # the switch, not the mode that stands beside it
    "trainer.framework": "trl",
}


def settings(name: str, text: str) -> dict[str, Any]:
    return {one.name: one.value for one in read_text(name, text)}


def as_yaml() -> str:
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in ARGUMENTS.items())


def as_flags() -> str:
    """A switch alone, one with its value, "=" and "-" as people write them."""
    words = [
        f"--{key}" if value is True else f"--{key.replace('_', '-')}={value}"
        for key, value in ARGUMENTS.items()
    ]
    return "accelerate launch --num_processes 2 train_grpo.py \\\n  " + " \\\n  ".join(words)


def as_python() -> str:
    listed = ", ".join(f"{key}={value!r}" for key, value in ARGUMENTS.items())
    return f"from trl import GRPOConfig\nconfig = GRPOConfig(output_dir=folder(), {listed})\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grpo.yaml", as_yaml()),
        ("grpo.json", json.dumps(ARGUMENTS)),
        ("run.sh", as_flags()),
        ("train.py", as_python()),
    ],
)
def test_four_forms_of_the_same(name: str, text: str) -> None:
    assert settings(name, text) == EXPECTED


def test_python_is_parsed_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "run"
    text = (
        f"import pathlib\npathlib.Path({str(trace)!r}).write_text('ran')\n"
        "from trl import GRPOConfig\n"
        f"config = GRPOConfig(use_vllm=True, top_k=pathlib.Path({str(trace)!r}).touch() or 5,\n"
        "    model_init_kwargs=dict(dtype=torch.bfloat16, attn_implementation='sdpa'))\n"
    )
    found = settings("train.py", text)
    assert not trace.exists()
    assert "sampling.top_k" not in found
    assert found["trainer.master_dtype"] == "bf16"
    assert found["trainer.attention"] == "sdpa"


def test_an_adapter_says_what_its_defaults_are() -> None:
    found = {
        one.name: one
        for one in read_text("grpo.yaml", "use_vllm: true\nnum_generations: 8\nuse_peft: true\n")
    }
    assert found["trainer.lora_rank"].value == 16
    assert found["trainer.lora_dropout"].value == 0.05
    assert "lora_dropout is 0.05 where it is not given" in found["trainer.lora_dropout"].where
    assert found["weights.lora_merged"].value is True


def test_an_adapter_of_peft() -> None:
    text = "from trl import GRPOConfig\nGRPOConfig(use_vllm=True)\nLoraConfig(r=4, lora_alpha=8)\n"
    found = settings("train.py", text)
    assert (found["trainer.lora_rank"], found["trainer.lora_alpha"]) == (4, 8)
    assert found["trainer.lora_dropout"] == 0.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sft.yaml", "learning_rate: 1e-5\nbf16: true\ntemperature: 0.7\n"),
        ("train.py", "import torch\nmodel = AutoConfig(dtype='bfloat16')\n"),
        ("train.py", "from trl import GRPOConfig\nGRPOConfig(use_vllm=\n"),
        ("run.sh", "python train.py --bf16 --temperature 0.7\n"),
    ],
)
def test_what_is_not_ours_is_not_read(name: str, text: str) -> None:
    with pytest.raises(RequestError, match="understood"):
        read_text(name, text)
