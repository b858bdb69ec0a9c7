"""Differences and correlation in probability space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    OVERFLOW,
    FloatArray,
    IntArray,
    Number,
    Undefined,
    dot,
    mean,
)
from driftscope_probes.mismatch.sums import (
    DivergenceSums,
    SequenceSums,
    TokenExtremes,
    TokenSpread,
    unbiased_std_of,
)

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

    The first value is subtracted before the mean: values that differ only in their last digits
    would otherwise be centred on a rounded mean.
    """
    deviations = values / np.abs(values).max()
    deviations -= deviations[0]
    deviations -= deviations.mean()
    scaled: FloatArray = deviations / np.abs(deviations).max()
    return scaled


# Squares of distances below 1e-140 lose their digits to underflow.
LEAST_SQUARES = 1e-280


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityMoments:
    """Per sequence; distances are from one of its tokens, so that probabilities which differ only
    in their last digits are not measured from a rounded mean.
    """

    length: IntArray  # [sequences] tokens, at least 1
    rollout_anchor: FloatArray  # probability of the first token
    trainer_anchor: FloatArray
    rollout_sum: FloatArray  # Σ (p − anchor)
    trainer_sum: FloatArray
    rollout_squares: FloatArray  # Σ (p − mean of the sequence)²
    trainer_squares: FloatArray
    products: FloatArray  # Σ of the products of both distances


def probability_moments(found: TokenPass) -> ProbabilityMoments:
    present = found.rows["kept"] > 0
    rows, sums, spread = found.rows[present], found.sums[present], found.spread[present]
    return ProbabilityMoments(
        length=rows["kept"],
        rollout_anchor=rows["rollout_anchor"],
        trainer_anchor=rows["trainer_anchor"],
        rollout_sum=sums["rollout_prob"],
        trainer_sum=sums["trainer_prob"],
        rollout_squares=spread["rollout_prob"],
        trainer_squares=spread["trainer_prob"],
        products=spread["prob_product"],
    )


def all_squares(moments: ProbabilityMoments) -> tuple[float, float, float]:
    """Σ (p − mean)² of the rollout side, of the trainer, and Σ of the products, over all tokens."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        x = _from_mean(moments.rollout_anchor, moments.rollout_sum, moments.length)
        y = _from_mean(moments.trainer_anchor, moments.trainer_sum, moments.length)
        return (
            float(moments.rollout_squares.sum() + dot(moments.length, x * x)),
            float(moments.trainer_squares.sum() + dot(moments.length, y * y)),
            float(moments.products.sum() + dot(moments.length, x * y)),
        )


def hold_their_digits(moments: ProbabilityMoments) -> bool:
    """Whether no square over- or underflows; a constant side counts as underflow."""
    squares = all_squares(moments)[:2]
    return all(math.isfinite(value) and value >= LEAST_SQUARES for value in squares)


def pearson_of_moments(moments: ProbabilityMoments) -> Number:
    """As pearson() over all tokens; a side whose squares underflow counts as constant."""
    if not moments.length.size:
        return NO_TOKENS
    first, second, products = all_squares(moments)
    if not math.isfinite(products) or not math.isfinite(first) or not math.isfinite(second):
        return OVERFLOW
    if min(first, second) < LEAST_SQUARES:
        return ONE_SIDE_CONSTANT
    # Not over the root of a product: equal sides give exactly 1 this way.
    correlation = (products / second) / math.sqrt(first / second)
    return max(-1.0, min(1.0, correlation))


def _from_mean(anchor: FloatArray, total: FloatArray, length: IntArray) -> FloatArray:
    """Distance of each sequence's mean from the mean of all tokens."""
    distance = (anchor - anchor[:1]) + total / length
    centred: FloatArray = distance - dot(distance, length) / length.sum()
    return centred
