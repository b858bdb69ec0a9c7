"""What the mixin for TRL refuses before training, each with what to set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from driftscope_kernels.on_policy.trl import check_trainer


def trainer(**changed: Any) -> SimpleNamespace:
    """The attributes of a GRPOTrainer that are read; the whole of it runs in tests/examples."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1,
        )
    ).bfloat16()  # fmt: skip
    layers = changed.pop("layers", torch.nn.Identity())
    worker = SimpleNamespace(model_runner=SimpleNamespace(model=layers))
    engine = SimpleNamespace(
        model_config=SimpleNamespace(dtype=torch.bfloat16),
        model_executor=SimpleNamespace(driver_worker=worker),
    )
    usual: dict[str, Any] = {
        "device": "cpu", "processes": 1, "precision": "no", "use_vllm": True, "mode": "colocate",
        "model": model,
    }  # fmt: skip
    one = {**usual, **changed}
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            device=torch.device(one["device"]),
            num_processes=one["processes"],
            mixed_precision=one["precision"],
        ),
        use_vllm=one["use_vllm"],
        vllm_mode=one["mode"],
        model=one["model"],
        vllm_generation=SimpleNamespace(llm=SimpleNamespace(llm_engine=engine)),
    )


def test_the_usual_one_is_accepted() -> None:
    pytest.importorskip("vllm")
    check_trainer(trainer())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": "meta"}, "use_cpu=True"),
        ({"processes": 2}, "2 processes"),
        ({"precision": "bf16"}, "set bf16=False"),
        ({"use_vllm": False}, "use_vllm=True"),
        ({"mode": "server"}, 'vllm_mode="colocate"'),
    ],
)
def test_what_would_not_be_exact_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_trainer(trainer(**changed))


class GeluAndMul(torch.nn.Module):
    """By name one of vLLM's that ours have no form of."""


def test_a_layer_of_vllms_own_is_refused() -> None:
    pytest.importorskip("vllm")
    with pytest.raises(ValueError, match=r"GeluAndMul.*use LoadableMixin"):
        check_trainer(trainer(layers=GeluAndMul()))


def test_two_dtypes_are_refused() -> None:
    other = trainer()
    other.model.float()
    with pytest.raises(ValueError, match="float32, the engine's torch.bfloat16"):
        check_trainer(other)
