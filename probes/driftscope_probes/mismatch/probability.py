"""Differences in probability space: |p_trainer − p_rollout|, and how the two correlate.

In: what was summed over the tokens. Out: plain numbers (probabilities have no unit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    OVERFLOW,
    Number,
    Undefined,
    mean,
)
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_extremes import TokenExtremes
from driftscope_probes.mismatch.token_spread import TokenSpread, unbiased_std_of

ONE_SIDE_CONSTANT = Undefined("one side gives every token the same probability")


@dataclass(frozen=True, slots=True)
class ProbabilityDifference:
    """verl: training/rollout_probs_diff_{mean,max,std} and rollout_actor_probs_pearson_corr."""

    prob_abs_diff_mean: Number
    prob_abs_diff_max: Number
    prob_abs_diff_std: Number  # unbiased
    prob_abs_diff_seq_mean: Number  # mean over sequences of their token means (total variation)
    prob_diff_mean: Number  # signed (prime-rl prob_delta)
    prob_pearson: Number


def probability_difference(
    sums: SequenceSums,
    divergences: DivergenceSums,
    spread: TokenSpread,
    extremes: TokenExtremes,
    correlation: Number,
) -> ProbabilityDifference:
    """correlation: of both probabilities over the tokens."""
    gaps = sums.prob_abs_diff
    return ProbabilityDifference(
        prob_abs_diff_mean=sums.token_mean(gaps),
        prob_abs_diff_max=extremes.number(extremes.prob_abs_diff_max),
        prob_abs_diff_std=unbiased_std_of(sums, gaps, spread.prob_abs_diff),
        prob_abs_diff_seq_mean=mean(gaps / sums.length),
        prob_diff_mean=sums.token_mean(divergences.prob_diff),
        prob_pearson=correlation,
    )


def pearson(first: FloatArray, second: FloatArray) -> Number:
    """Correlation of two [tokens] arrays; undefined, not 0, where one of them is constant."""
    if not first.size:
        return NO_TOKENS
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return OVERFLOW
    if first.min() == first.max() or second.min() == second.max():
        return ONE_SIDE_CONSTANT
    x, y = _centred(first), _centred(second)
    correlation = float(np.dot(x, y)) / math.sqrt(float(np.dot(x, x)) * float(np.dot(y, y)))
    # Rounding can leave a perfect correlation one unit in the last place above 1.
    return max(-1.0, min(1.0, correlation))


def _centred(values: FloatArray) -> FloatArray:
    """Deviations from the mean, scaled so that their squares neither under- nor overflow.

    The first value is subtracted before the mean: values that differ in their last digits only
    would otherwise be centred on a rounded mean.
    """
    deviations = values / np.abs(values).max()
    deviations -= deviations[0]
    deviations -= deviations.mean()
    scaled: FloatArray = deviations / np.abs(deviations).max()
    return scaled
