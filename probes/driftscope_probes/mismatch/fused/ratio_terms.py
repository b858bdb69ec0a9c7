"""All that depends on Δ of one token alone: ratio, k3 both ways, Jensen-Shannon, χ².

In: Δ, finite float64. Out: RatioTerms; one exponential and one logarithm serve them all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.exp_log import (
    OVERFLOWS_ABOVE,
    ROUNDER,
    ROUNDER_BITS,
    inverse_power_of_two,
    log_series,
    power_of_two,
    reduced,
    series,
)
from driftscope_probes.mismatch.fused.float_bits import bits_of, fma, from_bits
from driftscope_probes.mismatch.fused.layouts import EXPONENT_BIAS, MANTISSA_BITS
from driftscope_probes.mismatch.terms import CHI_SQUARE_BOUND

LN_2 = math.log(2.0)
MOST_EXCESS = math.expm1(CHI_SQUARE_BOUND)
LEAST_EXCESS = math.expm1(-CHI_SQUARE_BOUND)

# Bits of √½: less those of a number, its exponent is that of a mantissa between √½ and √2.
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD

# Beyond it ln cosh(Δ/2) is |Δ|/2 − ln 2 to the last bit, and cosh may overflow.
LINEAR_ABOVE = 600.0


class RatioTerms(NamedTuple):
    """Names as in SequenceSums and DivergenceSums; a NamedTuple, as compiled code returns it."""

    ratio: float  # ρ = exp(Δ)
    mult_error: float  # exp(|Δ|)
    shrink: float  # exp(−|Δ|)
    shortfall: float  # 1 − exp(−|Δ|), without cancellation
    excess: float  # ρ − 1, without cancellation
    kl_k3: float  # ρ − 1 − Δ
    kl_reverse_k3: float  # 1/ρ − 1 + Δ
    double_js: float  # 2 ln cosh(Δ/2)
    chi2: float  # ρ² − 1, Δ clamped


@inlined
def ratio_terms(diff: float) -> RatioTerms:
    """exp(±|Δ|) = 2^±k (1 ± y + y²(E ± yO)): one polynomial, even and odd part, gives both.

    k is 0 up to |Δ| = ½ ln 2 and y is |Δ|; the differences from 1 and 1 + Δ then vanish exactly.
    """
    size = abs(diff)
    biased, y = reduced(min(size, OVERFLOWS_ABOVE))
    scale = math.inf if size > OVERFLOWS_ABOVE else power_of_two(biased)
    inverse = inverse_power_of_two(biased)
    square = y * y
    even, odd_part = series(square)
    odd = y * odd_part
    curved_up, curved_down = square * (even + odd), square * (even - odd)
    up, down = y + curved_up, curved_down - y
    grown, shrunk = fma(scale, up, scale), fma(inverse, down, inverse)
    gain, shortfall = fma(scale, up, scale - 1.0), fma(-inverse, down, 1.0 - inverse)
    k3_up = fma(scale, curved_up, (scale - 1.0) + fma(scale, y, -size))
    k3_down = fma(inverse, curved_down, (inverse - 1.0) + fma(-inverse, y, size))
    rises = diff > 0.0
    excess = gain if rises else -shortfall
    clamped = min(max(excess, LEAST_EXCESS), MOST_EXCESS)
    return RatioTerms(
        grown if rises else shrunk,
        grown,
        shrunk,
        shortfall,
        excess,
        k3_up if rises else k3_down,
        k3_down if rises else k3_up,
        size - 2.0 * LN_2 if size > LINEAR_ABOVE else _log1p(0.25 * (k3_up + k3_down)),
        clamped * (clamped + 2.0),
    )


@inlined
def _log1p(value: float) -> float:
    """ln(1 + value) of a finite value from 0 on; (cosh Δ − 1) / 2 gives 2 ln cosh(Δ/2)."""
    k = (bits_of(1.0 + value) - SQRT_HALF_BITS) >> MANTISSA_BITS
    scale = from_bits((EXPONENT_BIAS - k) << MANTISSA_BITS)
    # (1 + value)·2^−k − 1: for k = 0 it is the value itself, however small.
    beyond = fma(value, scale, scale - 1.0)
    s = beyond / (2.0 + beyond)
    square = s * s
    count = from_bits(k + ROUNDER_BITS) - ROUNDER
    return fma(count, LN_2, fma(s * square, log_series(square), 2.0 * s))
