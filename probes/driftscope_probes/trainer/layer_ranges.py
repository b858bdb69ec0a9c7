"""Ranges of a model's activations and gradients, layer by layer, collected by hooks.

In: a model that runs forward and backward. Out: LayerRange per layer, in order of execution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from driftscope_probes.trainer.half_precision_range import HalfPrecisionRange, add_values


@dataclass(slots=True)
class LayerRange:
    """activation: what the layer reads and writes (a norm's input is the residual stream, a down
    projection's the gated product: neither is the output of any layer). gradient: of the layer's
    output and of its own parameters, which a float16 backward pass both stores in float16."""

    layer: str
    activation: HalfPrecisionRange
    gradient: HalfPrecisionRange
    scaled_gradient: HalfPrecisionRange

    @staticmethod
    def empty(layer: str, loss_scale: float) -> LayerRange:
        ranges = (HalfPrecisionRange(scale) for scale in (1.0, 1.0, loss_scale))
        return LayerRange(layer, *ranges)

    def add_activation(self, values: Tensor) -> None:
        add_values(values, self.activation)

    def add_gradient(self, values: Tensor) -> None:
        add_values(values, self.gradient, self.scaled_gradient)

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            **self.activation.to_dict("activation"),
            **self.gradient.to_dict("gradient"),
            **self.scaled_gradient.to_dict("scaled_gradient"),
        }


class LayerRanges:
    """Context manager: while it is open, every measured layer's tensors are counted."""

    def __init__(self, model: nn.Module, loss_scale: float) -> None:
        self._model = model
        self._loss_scale = loss_scale
        self._names = {module: name for name, module in model.named_modules() if measured(module)}
        self._ranges: dict[str, LayerRange] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> LayerRanges:
        self._handles = [module.register_forward_hook(self._seen) for module in self._names]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def of(self, layer: str) -> LayerRange:
        return self._ranges.setdefault(layer, LayerRange.empty(layer, self._loss_scale))

    def all(self) -> list[LayerRange]:
        return list(self._ranges.values())

    def add_parameter_gradients(self) -> None:
        """After the last backward pass. A tied parameter counts for the layer that runs first."""
        counted: set[int] = set()
        order = {name: index for index, name in enumerate(self._ranges)}
        for module, name in sorted(
            self._names.items(), key=lambda item: order.get(item[1], len(order))
        ):
            for parameter in module.parameters(recurse=False):
                if parameter.grad is not None and id(parameter) not in counted:
                    counted.add(id(parameter))
                    self.of(name).add_gradient(parameter.grad)

    def _seen(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        layer = self.of(self._names[module])
        for tensor in _float_tensors((inputs, outputs)):
            layer.add_activation(tensor)
        for tensor in _float_tensors(outputs):
            if tensor.requires_grad:
                tensor.register_hook(layer.add_gradient)  # type: ignore[no-untyped-call]


def measured(module: nn.Module) -> bool:
    """Leaves, and whatever holds parameters of its own (a mixture's experts hold an activation)."""
    return not any(True for _ in module.children()) or any(
        True for _ in module.parameters(recurse=False)
    )


def _float_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if torch.is_floating_point(value):
            yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _float_tensors(item)
