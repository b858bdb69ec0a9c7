"""The experts of a mixture, and the choice among them: what is right, and how far from it.

In: x, weights and experts of one side's router. Out: out [tokens, width], tolerance, ways, faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops import experts_ways as ways
from driftscope_kernels.compare_ops.experts_ways import ACTIVATIONS, Routed, Way
from driftscope_kernels.compare_ops.linear import linear_tolerance
from driftscope_kernels.compare_ops.parameters import (
    ActivationName,
    ExpertsParameters,
    LinearParameters,
)
from driftscope_kernels.compare_ops.top_k import TopKFamily
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant

#: The steepest slope of silu, gelu and relu: gelu's, at √2.
STEEPEST: Final = 1.13
#: Roundings of act(gate)·up: of the activation, and of the product.
ACTIVATION_ROUNDINGS: Final = 2.0
#: Errors of the inner features are within their bounds at random: three times the root of the sum
#: of squares is five deviations of numbers that are uniform within them.
DEVIATIONS: Final = 3.0
#: Roundings of one weighted expert: the weight, the product, and the sum it joins.
WEIGHTED_ROUNDINGS: Final = 3.0


class ExpertsFamily(Family[ExpertsParameters]):
    outputs = ("out",)

    def reference(self, inputs: Inputs, parameters: ExpertsParameters) -> Outputs:
        wide = replace(
            parameters, gate_up=parameters.gate_up.double(), down=parameters.down.double()
        )
        routed = _routed(inputs)
        wide_routed = Routed(routed.x.double(), routed.weights.double(), routed.experts)
        return (ways.summed_in_float32(wide_routed, wide, torch.float64),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: ExpertsParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        routed, half = _routed(inputs), torch.finfo(dtype).eps / 2

        def one(x: Tensor, expert: int) -> Tensor:
            return _expert_tolerance(x, parameters, expert, dtype)

        apart = routed.each(one, len(parameters.down), torch.float64)
        weights = routed.weights.double().abs()[:, :, None]
        return ((apart * weights).sum(dim=1) + half * reference[0].abs(),)

    def variants(self, parameters: ExpertsParameters) -> Sequence[Variant[ExpertsParameters]]:
        return tuple(_variants())

    def faults(self, parameters: ExpertsParameters) -> Sequence[Variant[ExpertsParameters]]:
        return tuple(_faults(parameters))


def _expert_tolerance(
    x: Tensor, given: ExpertsParameters, expert: int, dtype: torch.dtype
) -> Tensor:
    """float64 [tokens, width], and three roundings of what it is added to."""
    half = torch.finfo(dtype).eps / 2
    first = LinearParameters(given.gate_up[expert].double())
    inner = x.double() @ first.weight.t()
    gate, up = inner.chunk(2, dim=-1)
    first_off = linear_tolerance(x, first, dtype, inner, partial_sums=False)
    gate_off, up_off = first_off.chunk(2, dim=-1)
    active = ACTIVATIONS[given.activation](gate)
    product = active * up
    off = STEEPEST * gate_off * (up.abs() + up_off) + active.abs() * up_off
    off = off + ACTIVATION_ROUNDINGS * half * product.abs()
    last = LinearParameters(given.down[expert].double())
    out = product @ last.weight.t()
    carried = DEVIATIONS * (off.square() @ last.weight.square().t()).sqrt()
    own = linear_tolerance(product, last, dtype, out)
    return carried + own + WEIGHTED_ROUNDINGS * half * out.abs()


def _routed(inputs: Inputs) -> Routed:
    return Routed(inputs["x"], inputs["weights"], inputs["experts"].long())


def _variant(
    name: str, reason: Reason, says: str, code: str, way: Way
) -> Variant[ExpertsParameters]:
    def run(inputs: Inputs, parameters: ExpertsParameters, dtype: torch.dtype) -> Outputs:
        return (way(_routed(inputs), parameters, dtype),)

    return Variant(name, reason, says, code, run)


def _variants() -> Iterator[Variant[ExpertsParameters]]:
    yield _variant(
        "grouped",
        "rounding_point",
        "experts round to the dtype, and their weighted sum is float32",
        "(parts * weights[:, :, None]).sum(dim=1).to(dtype)",
        ways.summed_in_float32,
    )
    yield _variant(
        "vllm_cpu",
        "rounding_point",
        "gate, up and the weighted sum stay float32, and exp is a polynomial",
        "torch.ops._C.cpu_fused_moe(...)",
        ways.vllm_cpu,
    )
    yield _variant(
        "batched",
        "reduction_order",
        "each token's experts are matrix-vector products",
        "torch.bmm(w[experts], x[:, :, None])",
        ways.batched,
    )
    yield _variant(
        "index_add",
        "rounding_point",
        "one expert after another is added in the dtype",
        "out.index_add_(0, tokens, (part * weight).to(dtype))",
        ways.index_added,
    )
    yield _variant(
        "router_order",
        "rounding_point",
        "experts are added in the dtype, in the order of the router",
        "for i in range(k): out = out + parts[:, i] * weights[:, i, None]",
        ways.in_router_order,
    )
    yield _variant(
        "weighted_accumulator",
        "rounding_point",
        "the float32 accumulator is multiplied by the weight before it is rounded",
        "(inner.float() @ w2.float().t() * weight).to(dtype)",
        ways.weighted_accumulator,
    )
    yield _variant(
        "rounded_once",
        "rounding_point",
        "down projection and weighted sum are float32 and rounded once",
        "sum(weight * (inner.float() @ w2.float().t())).to(dtype)",
        ways.rounded_once,
    )
    yield _variant(
        "float32",
        "dtype",
        "experts are float32 throughout",
        "experts.float()(x.float()).to(dtype)",
        ways.float32_throughout,
    )
    yield _variant(
        "rounded_weights",
        "rounding_point",
        "the router's weights are rounded to the dtype",
        "(parts * weights.to(dtype)[:, :, None]).sum(dim=1)",
        ways.rounded_weights,
    )
    yield _variant(
        "weighted_before_down",
        "rounding_point",
        "the weight multiplies what the down projection is given",
        "F.linear(act(gate) * up * weight, w2)",
        ways.weighted_before_down,
    )


def _faults(parameters: ExpertsParameters) -> Iterator[Variant[ExpertsParameters]]:
    count = len(parameters.down)
    numbers = torch.arange(count)
    orders = {
        "on": ("experts are moved on by one", numbers.roll(1)),
        "back": ("experts are moved back by one", numbers.roll(-1)),
        "reversed": ("experts are in reversed order", numbers.flip(0)),
        "halves": ("the two halves of the experts are swapped", numbers.roll(count // 2)),
    }
    for name, (says, order) in orders.items():
        yield _variant(
            f"experts_{name}", "weight", says, "w13[order], w2[order]", _with_order(order)
        )
    yield _variant(
        "gate_up_swapped",
        "weight",
        "gate and up are swapped",
        "up, gate = F.linear(x, w13).chunk(2, -1)",
        _changed(lambda given: replace(given, gate_up=_halves_swapped(given.gate_up))),
    )
    yield _variant(
        "gate_up_interleaved",
        "weight",
        "rows of gate and up alternate",
        "gate, up = h[..., ::2], h[..., 1::2]",
        _changed(lambda given: replace(given, gate_up=_alternating(given.gate_up))),
    )
    for name in ACTIVATIONS:
        if name != parameters.activation:
            yield _variant(
                f"activation_{name}",
                "formula",
                f"the activation is {name} instead of {parameters.activation}",
                f"hidden_act = {name!r}",
                _with_activation(name),
            )
    yield _variant(
        "unweighted",
        "formula",
        "the router's weights are left out",
        "parts.sum(dim=1)",
        _reweighted(torch.ones_like),
    )
    yield _variant(
        "last_dropped",
        "formula",
        "the last chosen expert is left out",
        "(parts * weights[:, :, None])[:, :-1].sum(dim=1)",
        _reweighted(_without_last),
    )
    yield _variant(
        "weights_reversed",
        "formula",
        "weights belong to the chosen experts in reversed order",
        "(parts * weights.flip(1)[:, :, None]).sum(dim=1)",
        _reweighted(lambda weights: weights.flip(1)),
    )


def _changed(change: Callable[[ExpertsParameters], ExpertsParameters]) -> Way:
    return lambda routed, given, dtype: ways.summed_in_float32(routed, change(given), dtype)


def _with_order(order: Tensor) -> Way:
    return _changed(
        lambda given: replace(given, gate_up=given.gate_up[order], down=given.down[order])
    )


def _with_activation(name: ActivationName) -> Way:
    return _changed(lambda given: replace(given, activation=name))


def _reweighted(change: Callable[[Tensor], Tensor]) -> Way:
    def way(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
        other = Routed(routed.x, change(routed.weights), routed.experts)
        return ways.summed_in_float32(other, given, dtype)

    return way


def _without_last(weights: Tensor) -> Tensor:
    kept = weights.clone()
    kept[:, -1] = 0
    return kept


def _halves_swapped(gate_up: Tensor) -> Tensor:
    return gate_up.roll(gate_up.shape[1] // 2, 1)


def _alternating(gate_up: Tensor) -> Tensor:
    """What a side computes that takes every second row of ours for gate."""
    return torch.cat([gate_up[:, ::2], gate_up[:, 1::2]], 1)


TOP_K: Final = TopKFamily()
EXPERTS: Final = ExpertsFamily()
