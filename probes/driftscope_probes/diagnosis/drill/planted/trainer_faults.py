"""Faults of function in the real trainer: changes of the Hugging Face model that it has loaded.

In: a Plant and a loaded model. Out: TRAINER_FAULTS by name. The reference forward does not go
through the trainer's desk, and so stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from driftscope_probes.diagnosis.drill.damage import coarse
from driftscope_probes.diagnosis.drill.faults.model import (
    dropout_in_attention,
    larger_epsilon,
    other_rope_base,
    sharper_attention,
)
from driftscope_probes.diagnosis.drill.planted.plant import Plant
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.question import Forward

#: The last one tells how the trainer is asked right now.
Fault = Callable[[LoadedModel, Plant, Callable[[], Forward]], None]
SEED = 0  # of what a fault draws


def _each_block(loaded: LoadedModel, change: Callable[[Tensor], Tensor]) -> None:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return change(output)

    for layer in loaded.model.model.layers:
        layer.mlp.register_forward_hook(hook)


def _batch(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
    """A kernel of few bits for micro-batches of more than one row."""
    _each_block(
        loaded, lambda values: coarse(values, plant.size) if values.shape[0] > 1 else values
    )


def _attention(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
    """The fused attention keeps few bits; written out it is exact."""
    if loaded.attention != "sdpa":
        return

    def hook(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (coarse(output[0], plant.size), *output[1:])

    for layer in loaded.model.model.layers:
        layer.self_attn.register_forward_hook(hook)


def _inputs(loaded: LoadedModel, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the decoder is called with."""

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        changed = dict(kwargs)
        change(changed)
        return args, changed

    loaded.decoder.register_forward_pre_hook(hook, with_kwargs=True)


def _pad(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
    """The attention mask is lost on its way: padding is attended to."""

    def change(inputs: dict[str, Any]) -> None:
        inputs["attention_mask"] = None
        # With positions that start anew behind the padding transformers would take it for a pack.
        inputs["position_ids"] = None

    _inputs(loaded, change)


def _pack(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
    """Positions do not start anew: the whole row is one document."""

    def change(inputs: dict[str, Any]) -> None:
        ids = inputs["input_ids"]
        inputs["position_ids"] = torch.arange(ids.shape[1])[None].expand_as(ids)

    _inputs(loaded, change)


def _of_model(damage: Callable[[Any, float, int], Any]) -> Fault:
    """A damage of the drill on data, on the trainer's model."""

    def fault(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
        damage(loaded.model, plant.size, SEED)

    return fault


def _head(loaded: LoadedModel, plant: Plant, asked: Callable[[], Forward]) -> None:
    """The head reads hidden states of `size` bits unless it runs in float32."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not parse_mode(asked().mode).fp32_head:
            output.last_hidden_state = coarse(output.last_hidden_state, plant.size)
        return output

    loaded.decoder.register_forward_hook(hook)


TRAINER_FAULTS: Mapping[str, Fault] = {
    "batch": _batch,
    "attention": _attention,
    "pad": _pad,
    "pack": _pack,
    "dropout": _of_model(dropout_in_attention),
    "norm_epsilon": _of_model(larger_epsilon),
    "rope": _of_model(other_rope_base),
    "sharper": _of_model(sharper_attention),
    "head": _head,
}
