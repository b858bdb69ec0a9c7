"""The gate of an MLP: activation(gate) · up.

In: gate and up. Out: their product, all [tokens, features].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.parameters import ActivationName, ActivationParameters
from driftscope_kernels.compare_ops.precision import FLOAT32, input_roundoff, roundoff, smallest
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Variant

_CAST: Final = (
    Choice("rounded"),
    Choice("float32", "rounding_point", "activation times up is float32, rounded once"),
)
_SILU: Final = (
    Choice("torch"),
    Choice("sigmoid", "primitive", "silu is x times torch's sigmoid in float32"),
    Choice("exp", "primitive", "silu is x / (1 + exp(−x)) with torch's exp"),
    Choice("exact", "primitive", "silu is rounded to float32 once"),
)
_GELU: Final = (
    Choice("torch"),
    Choice("formula", "primitive", "gelu is computed by torch's erf or tanh step by step"),
    Choice("exact", "primitive", "gelu is rounded to float32 once"),
)
#: Roundings of float32 in one activation, as multiples of |gate|: gelu adds 1 to an erf or tanh
#: near −1, where nothing of the sum's relative precision is left. SLEEF's functions have 1 ulp.
_FLOAT32_STEPS: Final = 8


class ActivationFamily(Family[ActivationParameters]):
    outputs: Sequence[str] = ("out",)

    def reference(self, inputs: Inputs, parameters: ActivationParameters) -> Outputs:
        return (_TORCH[parameters.name](inputs["gate"].double()) * inputs["up"].double(),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: ActivationParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """Activation and product are rounded once each to the dtype; inside, float32."""
        u, gate, up = roundoff(dtype), inputs["gate"].double(), inputs["up"].double()
        stored = input_roundoff(inputs["gate"], dtype) + input_roundoff(inputs["up"], dtype)
        # No activation here is steeper than 1.13, gelu's greatest slope.
        moved = 1.13 * gate.abs() * up.abs() * (_FLOAT32_STEPS * FLOAT32 + stored)
        lost = smallest(dtype) * (1 + up.abs())
        return (reference[0].abs() * (2 * u + u * u) + moved + lost,)

    def variants(self, parameters: ActivationParameters) -> Sequence[Variant[ActivationParameters]]:
        return [_variant(way) for way in _ways(parameters.name)]

    def faults(self, parameters: ActivationParameters) -> Sequence[Variant[ActivationParameters]]:
        return list(_faults(parameters.name))


ACTIVATION: Final = ActivationFamily()

#: In the dtype of its argument; 16 bit through float32 and one rounding.
_TORCH: Final[Mapping[ActivationName, Callable[[Tensor], Tensor]]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
_CODE: Final[Mapping[ActivationName, str]] = {
    "silu": "F.silu({x})",
    "gelu": "F.gelu({x})",
    "gelu_tanh": "F.gelu({x}, approximate='tanh')",
    "relu": "F.relu({x})",
}


def _ways(name: ActivationName) -> Iterator[Way]:
    if name == "relu":  # loses nothing, so that no way of it rounds elsewhere
        yield from ways("relu times up", _CAST[:1], _SILU[:1])
        return
    says = f"{name} is rounded to the dtype, then multiplied by up"
    yield from ways(says, _CAST, _SILU if name == "silu" else _GELU)


def _variant(way: Way) -> Variant[ActivationParameters]:
    cast, primitive = way.choices

    def run(inputs: Inputs, parameters: ActivationParameters, dtype: torch.dtype) -> Outputs:
        gate, up = inputs["gate"].to(dtype), inputs["up"].to(dtype)
        if primitive == "torch" and cast == "rounded":
            return (_TORCH[parameters.name](gate) * up,)
        active = _active(parameters.name, gate.float(), primitive)
        if cast == "float32":
            return ((active * up.float()).to(dtype),)
        return (active.to(dtype) * up,)

    return Variant(way.name, way.reason, way.says, _code(cast, primitive), run)


def _active(name: ActivationName, x: Tensor, primitive: str) -> Tensor:
    """`x` float32"""
    if primitive == "torch":
        return _TORCH[name](x)
    if primitive == "exact":
        return _TORCH[name](x.double()).float()
    if primitive == "sigmoid":
        return x * torch.sigmoid(x)
    if primitive == "exp":
        return x / (1.0 + torch.exp(-x))
    if name == "gelu":
        return x * 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5)))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def _code(cast: str, primitive: str) -> str:
    active = {
        "torch": "act(gate.float())",
        "sigmoid": "gate.float() * torch.sigmoid(gate.float())",
        "exp": "gate.float() / (1 + torch.exp(-gate.float()))",
        "formula": "gate.float() * 0.5 * (1 + torch.erf(gate.float() * 0.5**0.5))",
        "exact": "act(gate.double()).float()",
    }[primitive]
    if cast == "float32":
        return f"({active} * up.float()).to(gate.dtype)"
    return "act(gate) * up" if primitive == "torch" else f"({active}).to(gate.dtype) * up"


def _faults(name: ActivationName) -> Iterator[Variant[ActivationParameters]]:
    names: tuple[ActivationName, ...] = get_args(ActivationName)
    for other in names:
        if other != name:
            yield from _other(other, name)
    for way in _ways(name):
        if way.reason == "rounding_point":
            yield _swapped(_variant(way))
    yield Variant("no_activation", "formula", "gate is not activated", "gate * up", _no_activation)


def _other(other: ActivationName, own: ActivationName) -> Iterator[Variant[ActivationParameters]]:
    for way in _ways(other):
        if way.reason == "rounding_point":
            inner = _variant(way)

            def run(
                inputs: Inputs,
                parameters: ActivationParameters,
                dtype: torch.dtype,
                inner: Variant[ActivationParameters] = inner,
            ) -> Outputs:
                return inner.run(inputs, replace(parameters, name=other), dtype)

            says = f"the activation is {other}, not {own}"
            code = inner.code.replace("act(gate)", _CODE[other].format(x="gate"))
            yield Variant(f"{other}, {inner.name}", "formula", says, code, run)


def _swapped(inner: Variant[ActivationParameters]) -> Variant[ActivationParameters]:
    def run(inputs: Inputs, parameters: ActivationParameters, dtype: torch.dtype) -> Outputs:
        tensors = {"gate": inputs["up"], "up": inputs["gate"]}
        return inner.run(replace(inputs, tensors=tensors), parameters, dtype)

    says, code = "up is activated and multiplied by gate", inner.code.replace("gate", "up_")
    code = code.replace("* up", "* gate").replace("up_", "up")
    return Variant(f"swapped, {inner.name}", "formula", says, code, run)


def _no_activation(inputs: Inputs, parameters: ActivationParameters, dtype: torch.dtype) -> Outputs:
    return (inputs["gate"].to(dtype) * inputs["up"].to(dtype),)
