"""Numbers of whole sequences: log-ratios, ratios, perplexity, and growth with length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.number import (
    OVERFLOW,
    FloatArray,
    Number,
    Undefined,
    finite,
    maximum,
    mean,
    minimum,
    unbiased_std,
)
from driftscope_probes.mismatch.resampling import Interval, draw_counts, percentile_interval
from driftscope_probes.mismatch.sums import DivergenceSums, SequenceSums


@dataclass(frozen=True, slots=True)
class SequenceLogRatio:
    """Sequences whose tokens were partly left out enter with the tokens that remain."""

    seq_logratio_mean: Number
    seq_logratio_std: Number  # unbiased
    seq_logratio_min: Number
    seq_logratio_max: Number
    seq_logratio_per_token_mean: Number  # mean of S_i / n_i, the log of the geometric ratio
    seq_logratio_per_token_std: Number  # unbiased


def sequence_log_ratio(sums: SequenceSums) -> SequenceLogRatio:
    per_token = sums.diff / sums.length
    return SequenceLogRatio(
        seq_logratio_mean=mean(sums.diff),
        seq_logratio_std=unbiased_std(sums.diff),
        seq_logratio_min=minimum(sums.diff),
        seq_logratio_max=maximum(sums.diff),
        seq_logratio_per_token_mean=mean(per_token),
        seq_logratio_per_token_std=unbiased_std(per_token),
    )


@dataclass(frozen=True, slots=True)
class SequenceRatio:
    seq_ratio_mean: Number  # of the products exp(S_i); the expectation is 1
    seq_ratio_min: Number
    seq_ratio_max: Number
    seq_geo_ratio_mean: Number  # of the geometric means exp(S_i / n_i)
    seq_geo_ratio_min: Number
    seq_geo_ratio_max: Number


def sequence_ratio(sums: SequenceSums) -> SequenceRatio:
    with np.errstate(over="ignore"):
        product, geometric = np.exp(sums.diff), np.exp(sums.diff / sums.length)
    return SequenceRatio(
        seq_ratio_mean=mean(product),
        seq_ratio_min=minimum(product),
        seq_ratio_max=maximum(product),
        seq_geo_ratio_mean=mean(geometric),
        seq_geo_ratio_min=minimum(geometric),
        seq_geo_ratio_max=maximum(geometric),
    )


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Means over sequences; names and definitions of verl's rollout_corr/*.

    log_ppl_diff of a sequence is ln ppl_trainer − ln ppl_rollout = −S_i / n_i.
    """

    training_ppl: Number
    training_log_ppl: Number
    rollout_ppl: Number
    rollout_log_ppl: Number
    log_ppl_diff_mean: Number
    log_ppl_diff_abs_mean: Number
    log_ppl_diff_max: Number
    log_ppl_diff_min: Number
    ppl_ratio: Number  # mean of the inverse geometric ratios exp(−S_i / n_i)


def perplexity(sums: SequenceSums, divergences: DivergenceSums) -> Perplexity:
    training = 0.0 - divergences.trainer_logprob / sums.length
    rollout = 0.0 - divergences.rollout_logprob / sums.length
    difference = 0.0 - sums.diff / sums.length
    return Perplexity(
        training_ppl=mean(_exp(training)),
        training_log_ppl=mean(training),
        rollout_ppl=mean(_exp(rollout)),
        rollout_log_ppl=mean(rollout),
        log_ppl_diff_mean=mean(difference),
        log_ppl_diff_abs_mean=mean(np.abs(difference)),
        log_ppl_diff_max=maximum(difference),
        log_ppl_diff_min=minimum(difference),
        ppl_ratio=mean(_exp(difference)),
    )


def _exp(values: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.exp(values)


SLOPE_NAME = "seq_logratio_slope_per_1000_tokens"
TOKENS_PER_UNIT = 1000.0
ONE_LENGTH = Undefined("a slope over the length needs sequences of at least two lengths")
DRAWS_OF_ONE_LENGTH = Undefined("too few lengths: some resamples hold sequences of one length only")

# Lengths are whole numbers: as soon as two differ, Σ(n − mean)² is at least ½, while rounding
# leaves far less than ¼ as long as Σn² stays below 10¹⁵ (a thousand responses of a million tokens).
LEAST_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class LengthSlope:
    """Least squares of S_i on n_i with an intercept, every sequence with the same weight."""

    seq_logratio_slope_per_1000_tokens: Number  # nats


def length_slope(sums: SequenceSums) -> LengthSlope:
    if not np.isfinite(sums.diff).all():
        return LengthSlope(OVERFLOW)
    if not sums.length.size or sums.length.min() == sums.length.max():
        return LengthSlope(ONE_LENGTH)
    slope, _ = _slopes(_columns(sums), np.ones((1, sums.length.size)))
    return LengthSlope(finite(slope[0]))


def length_slope_interval(
    sums: SequenceSums, *, resamples: int, seed: int, draws: list[FloatArray] | None = None
) -> Interval | Undefined:
    """95 % percentile interval, with the draws that the means use for the same seed.

    draws: held_draws of the sequences; drawn anew where not given.
    """
    slope = length_slope(sums).seq_logratio_slope_per_1000_tokens
    if isinstance(slope, Undefined):
        return slope
    columns = _columns(sums)
    blocks = draws or draw_counts(sums.length.size, np.random.default_rng(seed), resamples)
    drawn = [_slopes(columns, counts) for counts in blocks]
    if min(spread.min() for _, spread in drawn) < LEAST_SPREAD:
        return DRAWS_OF_ONE_LENGTH
    return percentile_interval(np.concatenate([slopes for slopes, _ in drawn]))


def _columns(sums: SequenceSums) -> FloatArray:
    """[sequences, 5] 1, n, S, n², nS, with n and S counted from their medians."""
    length = (sums.length - int(np.median(sums.length))).astype(np.float64)
    log_ratio = sums.diff - np.median(sums.diff)
    ones = np.ones_like(length)
    return np.stack([ones, length, log_ratio, length * length, length * log_ratio], axis=1)


def _slopes(columns: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope and Σ(n − mean)² under each draw [draws, sequences]."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        drawn, length, log_ratio, squares, products = (counts @ columns).T
        spread = squares - length * length / drawn
        slope = (products - length * log_ratio / drawn) / spread
        return TOKENS_PER_UNIT * slope, spread
