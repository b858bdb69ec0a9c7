"""A linear layer, and the router of a mixture, which is one: what is right, and how far from it.

In: x [tokens, in] and the weights of one side. Out: y [tokens, out], tolerances, ways and faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops import linear_faults, linear_ways
from driftscope_kernels.compare_ops.linear_ways import plain, variant
from driftscope_kernels.compare_ops.parameters import LinearParameters
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Variant

#: A running sum of K terms is a random walk, each step rounded: √K·u of its scale is one standard
#: deviation or less, and among millions of elements some lie five off, of √(1/6) each.
ACCUMULATOR_DEVIATIONS: Final = 2.0
#: Partial sums of up to eight ranks, each rounded to the dtype, then added in it: 15 roundings of
#: what is smaller than the scale, of standard deviation √(15/12) of one, five deviations.
PARTIAL_SUM_ROUNDINGS: Final = 6.0
UNIT_ROUNDOFF_FLOAT32: Final = 2.0**-24


class LinearFamily(Family[LinearParameters]):
    outputs = ("y",)

    def reference(self, inputs: Inputs, parameters: LinearParameters) -> Outputs:
        y = inputs["x"].double() @ parameters.weight.double().t()
        return (y if parameters.bias is None else y + parameters.bias.double(),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: LinearParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """Of any order of additions in float32, and of partial sums stored in `dtype`.

        Weights and x rounded to less than they are (TF32, fp8) lie beyond it: that is a reason.
        """
        return (linear_tolerance(inputs["x"], parameters, dtype, reference[0]),)

    def variants(self, parameters: LinearParameters) -> Sequence[Variant[LinearParameters]]:
        return tuple(linear_ways.variants(parameters))

    def faults(self, parameters: LinearParameters) -> Sequence[Variant[LinearParameters]]:
        return tuple(linear_faults.faults(parameters))

    def fitted(
        self, inputs: Inputs, parameters: LinearParameters, seen: Outputs
    ) -> Sequence[Variant[LinearParameters]]:
        """Faults with a number or an order that only the result can tell."""
        return tuple(linear_faults.fitted(inputs, parameters, seen[0]))


class RouterFamily(LinearFamily):
    """Its logits are few and decide a choice, so where they round is looked at more closely."""

    def variants(self, parameters: LinearParameters) -> Sequence[Variant[LinearParameters]]:
        return (*super().variants(parameters), *_router_variants(parameters))

    def faults(self, parameters: LinearParameters) -> Sequence[Variant[LinearParameters]]:
        return (*super().faults(parameters), *_router_faults(parameters))


def linear_tolerance(
    x: Tensor,
    parameters: LinearParameters,
    dtype: torch.dtype,
    reference: Tensor,
    *,
    partial_sums: bool = True,
) -> Tensor:
    """float64 [tokens, out]; `partial_sums`: ranks may round theirs to `dtype`."""
    weight = parameters.weight.double()
    # √Σ(x·w)² is how large a sum is if signs are random; the reference, if they are not.
    scale = (x.double().square() @ weight.square().t()).sqrt() + reference.abs()
    ends = reference.abs()
    if parameters.bias is not None:
        ends = ends + parameters.bias.double().abs()
        scale = scale + parameters.bias.double().abs()
    half = torch.finfo(dtype).eps / 2
    terms = weight.shape[1]
    accumulated = ACCUMULATOR_DEVIATIONS * sqrt(terms) * UNIT_ROUNDOFF_FLOAT32
    rounded = partial_sums and dtype != torch.float32  # in float32 the accumulator's share has it
    partial = PARTIAL_SUM_ROUNDINGS * half if rounded else 0.0
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    return half * ends + (accumulated + partial) * scale + smallest


def _router_variants(parameters: LinearParameters) -> Iterator[Variant[LinearParameters]]:
    yield variant(
        "stored_dtype",
        "rounding_point",
        "logits are rounded to the weight's dtype before they are used",
        "F.linear(x.to(w.dtype), w, b).to(dtype)",
        lambda x, w, b, dtype: plain(x, w, b, w.dtype).to(dtype),
    )
    yield variant(
        "input_dtype",
        "dtype",
        "the router runs in the dtype of what it is given",
        "F.linear(x, w.to(x.dtype), b).to(dtype)",
        lambda x, w, b, dtype: plain(x, w, b, x.dtype).to(dtype),
    )


def _router_faults(parameters: LinearParameters) -> Iterator[Variant[LinearParameters]]:
    if parameters.bias is not None:
        yield variant(
            "bias_bf16",
            "dtype",
            "the router's bias is rounded to bf16",
            "F.linear(x, w, b.bfloat16().to(dtype))",
            lambda x, w, b, dtype: plain(x, w, None if b is None else b.bfloat16(), dtype),
        )


LINEAR: Final = LinearFamily()
ROUTER: Final = RouterFamily()
