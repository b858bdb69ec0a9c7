"""Effective sample size over sample size: how much of the batch the importance weights leave.

In: SequenceSums and DivergenceSums. Out: shares in (0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import NO_TOKENS, OVERFLOW, Number, Undefined
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.thresholds import TRUNCATED_AT

ALL_ZERO = Undefined("every weight underflows to 0")


@dataclass(frozen=True, slots=True)
class EffectiveSampleSize:
    """(Σw)² / (n Σw²), Kish. Truncation hides the tail, so the truncated ones read higher."""

    ess_ratio_token: Number  # w = exp(Δ)
    ess_ratio_sequence: Number  # w = exp(S_i)
    ess_ratio_token_truncated: Number  # w = min(exp(Δ), 2), as verl takes it
    ess_ratio_sequence_truncated: Number  # w = min(exp(S_i), 2)


def effective_sample_size(
    sums: SequenceSums, divergences: DivergenceSums, of_tokens: Number
) -> EffectiveSampleSize:
    """of_tokens: ess_ratio_token, which has two ways to it."""
    return EffectiveSampleSize(
        ess_ratio_token=of_tokens,
        ess_ratio_sequence=ess_ratio(sums.diff),
        ess_ratio_token_truncated=kish_ratio(
            float(divergences.truncated_ratio.sum()),
            float(divergences.truncated_ratio_square.sum()),
            int(sums.length.sum()),
        ),
        ess_ratio_sequence_truncated=ess_ratio(truncated_log_weights(sums.diff)),
    )


def truncated_log_weights(log_weights: FloatArray) -> FloatArray:
    return np.minimum(log_weights, math.log(TRUNCATED_AT))


def ess_ratio(log_weights: FloatArray) -> Number:
    """From log-weights; the largest is subtracted first, which cancels and cannot overflow."""
    if not log_weights.size:
        return NO_TOKENS
    if not np.isfinite(log_weights).all():
        return OVERFLOW
    with np.errstate(over="ignore"):  # a distance of −inf is a weight of 0
        weights = np.exp(log_weights - log_weights.max())
    return kish_ratio(float(weights.sum()), float(np.dot(weights, weights)), weights.size)


def kish_ratio(total: float, squares: float, count: int) -> Number:
    """From Σw, Σw² and n."""
    if not count:
        return NO_TOKENS
    if not (math.isfinite(total) and math.isfinite(squares)):
        return OVERFLOW
    if not squares:
        return ALL_ZERO
    share = total * total / (count * squares)
    return min(1.0, share)  # rounding can leave equal weights one unit in the last place above 1
