"""Slope of the sequence log-ratio over the length: does the drift add up along a response?

In: SequenceSums. Out: nats per 1,000 tokens, with its interval by resampling sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import OVERFLOW, Number, Undefined, finite
from driftscope_probes.mismatch.resampling import Interval, draw_counts, percentile_interval
from driftscope_probes.mismatch.sequence_sums import SequenceSums

NAME = "seq_logratio_slope_per_1000_tokens"
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
    """95 % percentile interval, under the draws that the means see with the same seed.

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
