"""A LoRA adapter on a loaded model, as PEFT trains it: y + scale · B(A(x)), never merged.

In: a model of transformers and an Adapter. Out: the same model, its layers with a hook each.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import AdaptedLayer, Adapter

#: Name of the submodule that a layer gets: it moves and changes its mode with the layer.
DELTA = "driftscope_lora"


class LoraDelta(nn.Module):
    """scale · B(A(dropout(x))), in float32: PEFT holds an adapter in float32 whatever the base's
    dtype is (`autocast_adapter_dtype`), and casts x to it.
    """

    def __init__(self, a: Tensor, b: Tensor, scale: float, dropout: float) -> None:
        super().__init__()
        self.a = nn.Parameter(a.float())  # [rank, in]
        self.b = nn.Parameter(b.float())  # [out, rank]
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., out]; autocast's dtype under autocast. x: [..., in]."""
        low = F.linear(self.dropout(x.to(self.a.dtype)), self.a)
        return F.linear(low, self.b) * self.scale


def apply_adapter(model: Any, adapter: Adapter) -> None:
    """Raises ModelError where the adapter is not of this model."""
    heads = (model.get_output_embeddings(), model.get_input_embeddings())
    with safe_open(adapter.weights, framework="pt") as tensors:
        for layer in adapter.layers:
            module = _module(model, adapter, layer)
            if any(module is head for head in heads):
                raise ModelError(
                    f"{adapter.path.name} adapts {layer.module}, an embedding or the output head; "
                    "layers between them are adapted here.",
                    remedy="give the trainer's own weights, merged, as --trainer-model FOLDER.",
                )
            a, b = tensors.get_tensor(layer.a), tensors.get_tensor(layer.b)
            _check_shapes(adapter, layer, module, a, b)
            delta = LoraDelta(a, b, layer.scale, adapter.dropout)
            module.add_module(DELTA, delta.train(module.training))
            module.register_forward_hook(_with_delta)


def _with_delta(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    added: Tensor = output + getattr(module, DELTA)(inputs[0])
    return added.to(output.dtype)


def _module(model: Any, adapter: Adapter, layer: AdaptedLayer) -> nn.Module:
    try:
        module: nn.Module = model.get_submodule(layer.module)
    except AttributeError as error:
        raise _of_another(adapter, f"the model has no {layer.module}") from error
    if not isinstance(module, nn.Linear | Conv1D):
        raise _of_another(adapter, f"{layer.module} is a {type(module).__name__}, no linear layer")
    return module


def _check_shapes(adapter: Adapter, layer: AdaptedLayer, module: Any, a: Tensor, b: Tensor) -> None:
    # Conv1D (GPT-2) holds [in, out]: fan_in_fan_out. Beside the layer that makes no difference.
    shape = module.weight.shape
    outputs, inputs = shape[::-1] if isinstance(module, Conv1D) else shape
    if a.shape[1] != inputs or b.shape[0] != outputs:
        raise _of_another(
            adapter,
            f"{layer.module} maps {inputs} features to {outputs}, the adapter {a.shape[1]} to "
            f"{b.shape[0]}",
        )


def _of_another(adapter: Adapter, found: str) -> ModelError:
    return ModelError(
        f"{adapter.path.name} is not an adapter of this model: {found}.",
        remedy=f"give its base as --trainer-model; the adapter names {adapter.base!r}.",
    )
