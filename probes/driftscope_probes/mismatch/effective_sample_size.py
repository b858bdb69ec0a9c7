"""Effective sample size over sample size: how much of the batch the importance weights leave.

In: TokenDifferences and SequenceSums. Out: shares in (0, 1], from raw weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import NO_TOKENS, OVERFLOW, Number
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True)
class EffectiveSampleSize:
    """(Σw)² / (n Σw²), Kish; raw, where verl takes it after truncation and so reads higher."""

    ess_ratio_token: Number  # w = exp(Δ)
    ess_ratio_sequence: Number  # w = exp(S_i)


def effective_sample_size(tokens: TokenDifferences, sums: SequenceSums) -> EffectiveSampleSize:
    return EffectiveSampleSize(
        ess_ratio_token=ess_ratio(tokens.diff), ess_ratio_sequence=ess_ratio(sums.diff)
    )


def ess_ratio(log_weights: FloatArray) -> Number:
    """From log-weights; the largest is subtracted first, which cancels and cannot overflow."""
    if not log_weights.size:
        return NO_TOKENS
    if not np.isfinite(log_weights).all():
        return OVERFLOW
    with np.errstate(over="ignore"):  # a distance of −inf is a weight of 0
        weights = np.exp(log_weights - log_weights.max())
    total = float(weights.sum())
    share: float = total * total / (weights.size * float(np.dot(weights, weights)))
    return min(1.0, share)  # rounding can leave equal weights one unit in the last place above 1
