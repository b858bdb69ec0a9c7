"""The terms of a close token, by shorter ways than those of any token.

In: both log-probabilities of a token that is_close(). Out: what ratio_terms() and
probability_terms() give for it, each within the same distance of the exact value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.exp_parts import power_of_two, reduced, series
from driftscope_probes.mismatch.fused.float_bits import fma
from driftscope_probes.mismatch.fused.probability_terms import HIGHEST, LOWEST, rest_kl

# Up to here exp(Δ) needs no power of two beside its series.
CLOSE_DIFF = 0.5 * math.log(2.0)

# 2 ln cosh(y / 2) / y² as a polynomial in y² up to CLOSE_DIFF², fitted at Chebyshev's points:
# relative error 1.8e-16 beside 8e-16 of a Taylor series with one term more.
J0, J1, J2, J3, J4, J5 = (
    0.24999999999999994,
    -0.010416666666639995,
    0.0006944444418518866,
    -5.270328077718071e-05,
    4.269898985002843e-06,
    -3.4958153450895366e-07,
)


class CloseRatioTerms(NamedTuple):
    """Of ρ = 1 + Δ + even + odd, with even and odd in Δ: all others are sums of these."""

    square: float  # Δ²
    even: float  # cosh Δ − 1
    odd: float  # sinh Δ − Δ
    excess: float  # ρ − 1, without cancellation
    shortfall: float  # 1 − exp(−|Δ|), without cancellation
    double_js: float  # 2 ln cosh(Δ/2)


class CloseProbabilityTerms(NamedTuple):
    rollout_prob: float
    trainer_prob: float
    prob_abs_diff: float
    prob_diff: float  # p_trainer − p_rollout
    binary_kl: float


@inlined
def is_close(rollout: float, trainer: float) -> bool:
    """|Δ| needs no reduction and OpenRLHF's clamps move neither probability."""
    close = abs(trainer - rollout) <= CLOSE_DIFF
    return close & (min(rollout, trainer) >= LOWEST) & (max(rollout, trainer) <= HIGHEST)


@inlined
def close_ratio_terms(diff: float) -> CloseRatioTerms:
    square = diff * diff
    even_part, odd_part = series(square)
    even, odd = square * even_part, diff * square * odd_part
    fourth = square * square
    js = fma(fourth, fma(fourth, fma(square, J5, J4), fma(square, J3, J2)), fma(square, J1, J0))
    shortfall = abs(diff) - (even - abs(odd))
    return CloseRatioTerms(square, even, odd, diff + (even + odd), shortfall, square * js)


@inlined
def larger_probability(rollout: float, trainer: float) -> tuple[float, float]:
    """(p, 1 − p) of the side where p is larger, neither of them with cancellation."""
    biased, rest = reduced(max(rollout, trainer))
    square = rest * rest
    even, odd = series(square)
    curved = fma(square, fma(rest, odd, even), rest)
    scale = power_of_two(biased)
    return fma(scale, curved, scale), fma(-scale, curved, 1.0 - scale)


@inlined
def close_probability_terms(
    rises: bool, larger: float, rest_of_larger: float, shortfall: float, kl_k3: float
) -> CloseProbabilityTerms:
    """As probability_terms(), without what clamps and overflow need; rises: trainer > rollout."""
    gap = larger * shortfall
    smaller, rest_of_smaller = larger - gap, rest_of_larger + gap
    rollout_prob, trainer_prob = (smaller, larger) if rises else (larger, smaller)
    prob_diff = gap if rises else -gap
    rollout_rest = rest_of_smaller if rises else rest_of_larger
    trainer_rest = rest_of_larger if rises else rest_of_smaller
    binary_kl = rollout_prob * kl_k3 + rest_kl(rollout_rest, trainer_rest, -prob_diff)
    return CloseProbabilityTerms(rollout_prob, trainer_prob, gap, prob_diff, binary_kl)
