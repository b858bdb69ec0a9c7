"""The family of attention: what is right, what rounding explains, variants, faults, fitted numbers.

In: q [tokens, heads · head_dim], k and v [tokens, kv_heads · head_dim] after rotary, packed. Out:
`out` [tokens, heads · head_dim].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.attention_faults import faults
from driftscope_kernels.compare_ops.attention_fits import fits
from driftscope_kernels.compare_ops.attention_heads import (
    Attended,
    Exact,
    exact_blocks,
    flat,
    repeated,
    sequences,
)
from driftscope_kernels.compare_ops.attention_variants import variants_of
from driftscope_kernels.compare_ops.attention_ways import AttentionVariant
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.precision import FLOAT32, roundoff, smallest
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs

#: Roundings of a float32 exponential beyond its argument's: torch's exp_u20 is within 20 ULP.
EXP_ULPS: Final = 20
#: Roundings of a score to the storage dtype where scores are kept in it: the product, the scaled
#: product, and with a cap its quotient, tangent and product.
SCORE_ROUNDINGS: Final = 2
CAP_ROUNDINGS: Final = 3
#: vLLM makes the tangent of two exponentials. For a small score they nearly cancel: what is left of
#: their own ULPs, of their sum and of the quotient is absolute, this many times float32's roundoff.
CAP_CANCELLED_ULPS: Final = 4


class AttentionFamily(Family[AttentionParameters]):
    outputs: Sequence[str] = ("out",)

    def reference(self, inputs: Inputs, parameters: AttentionParameters) -> Outputs:
        parts = [
            torch.cat([block.output for block in exact_blocks(one, parameters)], dim=1)
            for one in sequences(inputs, parameters)
            if one.q.shape[1]
        ]
        return (_packed(parts, inputs),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: AttentionParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        parts = [
            torch.cat(
                [_bound(block, one, parameters, dtype) for block in exact_blocks(one, parameters)],
                dim=1,
            )
            for one in sequences(inputs, parameters)
            if one.q.shape[1]
        ]
        return (_packed(parts, inputs),)

    def variants(self, parameters: AttentionParameters) -> Sequence[AttentionVariant]:
        return variants_of(parameters)

    def faults(self, parameters: AttentionParameters) -> Sequence[AttentionVariant]:
        return faults(parameters)

    def fitted(
        self, inputs: Inputs, parameters: AttentionParameters, seen: Outputs
    ) -> Sequence[AttentionVariant]:
        return fits(inputs, parameters, seen[0])


ATTENTION: Final = AttentionFamily()


def _packed(parts: Sequence[Tensor], inputs: Inputs) -> Tensor:
    empty = torch.empty((0, inputs["q"].shape[1]), dtype=torch.float64)
    return torch.cat([empty, *(flat(part) for part in parts)])


def _bound(block: Exact, one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    """[heads, queries, head_dim]: how far rounding takes an output from the exact one.

    With a score off by at most E_j, Σ p_j·(v_j − out) = 0 gives exactly
    |out′ − out| ≤ Σ p_j·(e^{E_j} − 1)·|v_j − out| / Σ p_j·e^{−E_j}. To it comes what rounding the
    probabilities does to Σ p_j·|v_j|, what adding n of them in float32 does, and the output's own
    rounding. Scores and probabilities count as rounded to the storage dtype, as eager attention
    does; a kernel that keeps them in float32 stays far inside.
    """
    unit, least = roundoff(dtype), smallest(dtype)
    values = repeated(one.v.double(), p)
    keys = values.shape[1]
    error = _score_error(block, one, p, unit, least)
    weights = block.probabilities
    # Where nothing is seen the score is −∞ and its error does not count.
    growth = torch.where(weights > 0, torch.expm1(error), 0.0)
    shrunk = (weights * torch.exp(-torch.where(weights > 0, error, 0.0))).sum(2, keepdim=True)
    moved = _spread(weights * growth, values, block.output) / shrunk.clamp(min=unit)
    size = weights @ values.abs()
    sums = FLOAT32 * (2 * keys + EXP_ULPS)
    visible = block.scores.isfinite().double() @ values.abs()
    bound = moved + (unit + sums) * size + least * visible
    # vLLM cuts bfloat16 off where the CPU has no instruction that rounds: a whole ulp, not a half.
    last = 2 * unit if dtype == torch.bfloat16 else unit
    return bound + last * (block.output.abs() + bound) + 2 * least


def _score_error(
    block: Exact, one: Attended, p: AttentionParameters, unit: float, least: float
) -> Tensor:
    """[heads, queries, keys]: how far a score may be off."""
    queries = one.q[:, block.start : block.end].double().abs()
    magnitude = queries @ repeated(one.k.double(), p).abs().transpose(1, 2) * abs(p.scale)
    scaled = block.products.abs() * abs(p.scale)
    roundings = SCORE_ROUNDINGS + (CAP_ROUNDINGS if p.softcap is not None else 0)
    # Where the scale is on the query it rounds every product on its own: |q|·|k|, not |q·k|.
    rounded = unit * (magnitude + roundings * scaled) + least * (1 + roundings)
    added = FLOAT32 * (p.head_dim + roundings) * magnitude
    # The largest score is subtracted in float32 before the exponential.
    largest = scaled.masked_fill(~block.scores.isfinite(), 0.0).amax(2, keepdim=True)
    cancelled = FLOAT32 * CAP_CANCELLED_ULPS * (p.softcap or 0.0)
    return rounded + added + FLOAT32 * (scaled + largest) + cancelled


def _spread(weights: Tensor, values: Tensor, output: Tensor) -> Tensor:
    """At least Σ_j weights_j·|v_j − out|, by Cauchy and Schwarz: products of matrices alone."""
    total = weights.sum(2, keepdim=True)
    first, second = weights @ values, weights @ values.square()
    squares = second - 2 * output * first + output.square() * total
    return (total * squares.clamp(min=0)).sqrt()
