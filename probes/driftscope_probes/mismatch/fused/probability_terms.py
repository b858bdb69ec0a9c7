"""What one token needs of both probabilities: their gap and the binary KL.

In: both log-probabilities and the exponentials of their difference. Out: ProbabilityTerms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.exp_log import (
    ROUNDER,
    ROUNDER_BITS,
    exp_and_expm1,
    log_series,
)
from driftscope_probes.mismatch.fused.float_bits import bits_of, fma, from_bits
from driftscope_probes.mismatch.fused.layouts import EXPONENT_BIAS, MANTISSA_BITS
from driftscope_probes.mismatch.fused.ratio_terms import LN_2

# OpenRLHF clamps both probabilities to [1e-6, 1 − 1e-6].
CLAMP = 1e-6
CLAMP_ABOVE = 1.0 - CLAMP
LOWEST = math.log(CLAMP)
HIGHEST = math.log1p(-CLAMP)

# Half an exponent: rounds the shift below to the nearest power of two instead of down.
HALF_EXPONENT = 1 << (MANTISSA_BITS - 1)


class ProbabilityTerms(NamedTuple):
    rollout_prob: float
    trainer_prob: float
    prob_abs_diff: float
    prob_diff: float  # p_trainer − p_rollout
    binary_kl: float


@inlined
def probability_terms(
    rollout: float, trainer: float, shrink: float, shortfall: float, kl_k3: float
) -> ProbabilityTerms:
    """shrink, shortfall, kl_k3: of RatioTerms.

    The smaller probability is the larger one times exp(−|Δ|), and its distance from 1 is the
    larger one's plus the gap: nothing cancels, also where both are near 1 or near each other.
    """
    larger, larger_excess = exp_and_expm1(max(rollout, trainer))
    smaller, gap = larger * shrink, larger * shortfall
    rest_of_larger = -larger_excess
    rest_of_smaller = rest_of_larger + gap
    rises = trainer > rollout
    rollout_prob, trainer_prob = (smaller, larger) if rises else (larger, smaller)
    prob_diff = gap if rises else -gap
    return ProbabilityTerms(
        rollout_prob,
        trainer_prob,
        gap,
        prob_diff,
        _binary_kl(
            rollout,
            trainer,
            rollout_prob,
            rest_of_smaller if rises else rest_of_larger,
            rest_of_larger if rises else rest_of_smaller,
            prob_diff,
            kl_k3,
        ),
    )


@inlined
def _binary_kl(
    rollout: float,
    trainer: float,
    rollout_prob: float,
    rollout_rest: float,
    trainer_rest: float,
    prob_diff: float,
    kl_k3: float,
) -> float:
    """p ln(p/q) + (1−p) ln((1−p)/(1−q)), p of the rollout side, q of the trainer.

    Written as p·k3 + (1−p)·k3 of the two log-ratios: the terms k3 adds cancel exactly, and no
    difference of nearly equal numbers is left, which is what close sides would otherwise show.
    """
    low, high = min(max(rollout, LOWEST), HIGHEST), min(max(trainer, LOWEST), HIGHEST)
    clamped = (low != rollout) | (high != trainer)
    rest = min(max(rollout_rest, CLAMP), CLAMP_ABOVE)
    other_rest = min(max(trainer_rest, CLAMP), CLAMP_ABOVE)
    rest_diff = other_rest - rest if clamped else -prob_diff
    prob = min(max(rollout_prob, CLAMP), CLAMP_ABOVE)
    of_token = max(fma(prob, low - high, -rest_diff), 0.0) if clamped else rollout_prob * kl_k3
    return of_token + rest_kl(rest, other_rest, rest_diff)


@inlined
def rest_kl(rest: float, other: float, difference: float) -> float:
    """rest·k3(ln(other / rest)); difference is other − rest, without cancellation.

    s = (m − 1) / (m + 1) with m = 2^−k·other / rest takes one division and no logarithm of 1 + x.
    """
    k = (bits_of(other) - bits_of(rest) + HALF_EXPONENT) >> MANTISSA_BITS
    scale = from_bits((EXPONENT_BIAS - k) << MANTISSA_BITS)
    s = fma(other, scale - 1.0, difference) / fma(other, scale, rest)
    square = s * s
    count = from_bits(k + ROUNDER_BITS) - ROUNDER
    # difference − rest·ln(other / rest); for k = 0 its first term is difference·s, exactly.
    far = fma(-rest, fma(count, LN_2, 2.0 * s), difference)
    first = difference * s if k == 0 else far
    return fma(-rest * s, square * log_series(square), first)
