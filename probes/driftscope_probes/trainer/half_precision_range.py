"""How values fill FP16's range: counts of a tensor, and of every layer's outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

#: IEEE 754 binary16: largest finite number.
FP16_MAX = 65_504.0
# Rounding to nearest, ties to even, moves each limit by half a step of the grid around it:
#: from here on a value becomes infinite,
OVERFLOW_FROM = 65_520.0
#: from here on it keeps all 11 bits (2^-14 is the smallest normal number),
NORMAL_FROM = 2.0**-14 - 2.0**-25
#: and up to here it becomes zero (2^-24 is the smallest subnormal number).
VANISHES_UP_TO = 2.0**-25
#: Values per pass: temporaries stay in the cache instead of being paged in again.
BLOCK = 1 << 18


@dataclass(slots=True)
class HalfPrecisionRange:
    """What rounding `scale` times a value to float16 would do to the values added so far.

    Overflow: infinite, or not finite to begin with. Subnormal: keeps fewer than 11 bits.
    Underflow: becomes zero. Zeros are counted nowhere: they lose nothing.
    """

    scale: float = 1.0  # a power of two: scaling itself rounds nothing
    largest: float = 0.0  # magnitude, scaled; infinite where a value was infinite or NaN
    values: int = 0  # non-zero ones
    overflow: int = 0
    subnormal: int = 0
    underflow: int = 0

    def share(self, count: int) -> float:
        return count / self.values if self.values else 0.0

    def to_dict(self, prefix: str) -> dict[str, float | None]:
        """Keys `<prefix>_max` and three shares; a maximum that is not finite is None (JSON)."""
        return {
            f"{prefix}_max": self.largest if math.isfinite(self.largest) else None,
            f"{prefix}_overflow_share": self.share(self.overflow),
            f"{prefix}_subnormal_share": self.share(self.subnormal),
            f"{prefix}_underflow_share": self.share(self.underflow),
        }

    def _count(self, magnitudes: Tensor, nonzero: int, largest: float) -> None:
        """The limits are divided, not the values multiplied: no second copy of the tensor."""
        self.largest = max(self.largest, largest * self.scale)
        self.values += nonzero
        if largest * self.scale >= OVERFLOW_FROM:
            fits = int((magnitudes < OVERFLOW_FROM / self.scale).count_nonzero())
            self.overflow += magnitudes.numel() - fits  # NaN fits nowhere
        zero = magnitudes.numel() - nonzero
        small = int((magnitudes < NORMAL_FROM / self.scale).count_nonzero())
        vanishing = int((magnitudes <= VANISHES_UP_TO / self.scale).count_nonzero())
        self.subnormal += small - vanishing
        self.underflow += vanishing - zero


def add_values(tensor: Tensor, *ranges: HalfPrecisionRange) -> None:
    """Count a tensor's values (taken as float32) in each of the ranges."""
    for block in torch.split(tensor.detach().float().flatten(), BLOCK):
        if block.numel() == 0:
            continue
        magnitudes = block.abs()
        largest = float(magnitudes.amax())
        nonzero = int(magnitudes.count_nonzero())
        for target in ranges:
            target._count(magnitudes, nonzero, largest if math.isfinite(largest) else math.inf)


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
