"""Intervals from resampling whole sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from driftscope_probes.errors import RequestError, TraceError
from driftscope_probes.mismatch.number import OVERFLOW, BoolArray, FloatArray, Undefined
from driftscope_probes.mismatch.sums import SequenceSums


@dataclass(frozen=True, slots=True, eq=False)
class SequenceMean:
    """Σ sums / Σ weights.

    Both are [sequences given]; sequences without tokens have weight 0. The weight is n_i for a
    mean over tokens, 1 for a mean over sequences.
    """

    sums: FloatArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if self.sums.ndim != 1 or self.sums.shape != self.weights.shape:
            raise TraceError(
                f"sums have shape {self.sums.shape}, weights have shape {self.weights.shape}.",
                remedy="give one sum and one weight per sequence.",
            )


def sequence_means(sums: SequenceSums) -> dict[str, SequenceMean]:
    """The means that get an interval; shape [sequences given], aligned with the given order."""
    per_token = {
        "abs_diff_mean": sums.abs_diff,
        "diff_mean": sums.diff,
        "kl_k1": 0.0 - sums.diff,
        "kl_k2": sums.kl_k2,
        "kl_k3": sums.kl_k3,
        "prob_abs_diff_mean": sums.prob_abs_diff,
    }
    per_sequence = {
        "abs_diff_seq_mean": sums.abs_diff / sums.length,
        "seq_logratio_mean": sums.diff,
    }
    lengths = _spread(sums, sums.length.astype(np.float64))
    ones = _spread(sums, np.ones(sums.length.size))
    over_tokens = {name: SequenceMean(_spread(sums, v), lengths) for name, v in per_token.items()}
    over_sequences = {
        name: SequenceMean(_spread(sums, v), ones) for name, v in per_sequence.items()
    }
    return over_tokens | over_sequences


def _spread(sums: SequenceSums, values: FloatArray) -> FloatArray:
    """Put the values of sequences with tokens at their indices; empty sequences get 0."""
    spread = np.zeros(sums.given_sequences)
    spread[sums.sequence_index] = values
    return spread


# Tokens of one sequence share their context and drift together; treated as independent, they would
# give intervals that are far too narrow. Hence whole sequences are drawn.
DEFAULT_RESAMPLES = 1000  # puts 25 resamples beyond each end of a 95 % interval
MAX_RESAMPLES = 100_000
DEFAULT_SEED = 0
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

# 512 KiB per array of 64-bit draws: stays in the second cache. Below 2^16, so that the product with
# eight columns stays below 2^19 multiplications: from there on OpenBLAS wakes its threads, which
# gain nothing here and then spin for tens of milliseconds during the next compiled pass.
DRAWS_PER_BLOCK = (1 << 16) - 1
# 8 MiB of them, kept for several statistics.
HELD_DRAWS = 1 << 20

ONE_SEQUENCE = Undefined("resampling sequences needs at least two of them")
NO_DRAWN_TOKENS = Undefined("too few sequences have tokens: some resamples would hold none")
ZERO_MEAN = Undefined("the mean in the denominator is 0, at least in some resamples")


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """How many times larger the first mean is than the second."""

    ratio: float
    low: float
    high: float
    joint: bool  # the same sequences were drawn in both, so what they share cancels


def held_draws(sequences: int, *, resamples: int, seed: int) -> list[FloatArray] | None:
    """The draws of draw_counts, for several statistics; None where they would take too much."""
    if not 1 <= sequences * resamples <= HELD_DRAWS:
        return None
    return list(draw_counts(sequences, np.random.default_rng(seed), resamples))


def mean_intervals(
    means: Mapping[str, SequenceMean],
    *,
    resamples: int,
    seed: int,
    draws: list[FloatArray] | None = None,
) -> dict[str, Interval | Undefined]:
    """95 % percentile interval of each mean; all use the same draws.

    draws: held_draws of the sequences that have a weight; drawn anew where not given.

    The means belong to one set of sequences. With few sequences (below about 20) percentile
    intervals are somewhat too narrow.
    """
    columns = list(means.values())
    present = np.logical_or.reduce([column.weights > 0 for column in columns])
    if np.count_nonzero(present) < 2:
        return dict.fromkeys(means, ONE_SEQUENCE)
    if draws is None:
        quotients = _quotients(columns, present, np.random.default_rng(seed), resamples)
    else:
        quotients = _drawn_quotients(columns, present, draws)
    return {name: percentile_interval(row) for name, row in zip(means, quotients.T, strict=True)}


def ratio_interval(
    first: SequenceMean,
    second: SequenceMean,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = DEFAULT_SEED,
) -> RatioInterval | Undefined:
    """95 % percentile interval of mean(first) / mean(second).

    With the same number of sequences on both sides, sequence i of both is taken to answer the
    same prompt and the same indices are drawn; otherwise each side is drawn separately. Meant for
    means that cannot be negative: a ratio of signed means has no useful interval.
    """
    check_resamples(resamples, least=1)
    if min(np.count_nonzero(first.weights), np.count_nonzero(second.weights)) < 2:
        return ONE_SEQUENCE
    if not (np.isfinite(first.sums).all() and np.isfinite(second.sums).all()):
        return OVERFLOW
    joint = first.sums.size == second.sums.size
    above, below = _drawn_pair(first, second, joint, np.random.default_rng(seed), resamples)
    if np.isnan(above).any() or np.isnan(below).any():
        return NO_DRAWN_TOKENS
    if np.any(below == 0):
        return ZERO_MEAN
    interval = percentile_interval(above / below)
    if isinstance(interval, Undefined):
        return interval
    ratio = _mean(first) / _mean(second)
    return RatioInterval(ratio=ratio, low=interval.low, high=interval.high, joint=joint)


def _mean(mean: SequenceMean) -> float:
    return float(mean.sums.sum() / mean.weights.sum())


def check_resamples(resamples: int, *, least: int) -> None:
    if not least <= resamples <= MAX_RESAMPLES:
        raise RequestError(
            f"{resamples} resamples were asked for; accepted are {least} to {MAX_RESAMPLES}.",
            remedy=f"use {DEFAULT_RESAMPLES}, or 0 in a comparison to leave intervals out.",
        )


def _drawn_pair(
    first: SequenceMean,
    second: SequenceMean,
    joint: bool,
    rng: np.random.Generator,
    resamples: int,
) -> tuple[FloatArray, FloatArray]:
    """Both means [resamples] under each draw."""
    if joint:
        present = (first.weights > 0) | (second.weights > 0)
        quotients = _quotients((first, second), present, rng, resamples)
        return quotients[:, 0], quotients[:, 1]
    above = _quotients((first,), first.weights > 0, rng, resamples)
    below = _quotients((second,), second.weights > 0, rng, resamples)
    return above[:, 0], below[:, 0]


def _quotients(
    means: Sequence[SequenceMean],
    present: BoolArray,
    rng: np.random.Generator,
    resamples: int,
) -> FloatArray:
    """[resamples, means] each mean under each draw of as many sequences as are present."""
    draws = draw_counts(int(np.count_nonzero(present)), rng, resamples)
    return _drawn_quotients(means, present, draws)


def _drawn_quotients(
    means: Sequence[SequenceMean], present: BoolArray, draws: Iterable[FloatArray]
) -> FloatArray:
    sums = np.stack([mean.sums[present] for mean in means], axis=1)
    # Most means share their weights: each array of them is drawn once.
    shared = {id(mean.weights): mean.weights for mean in means}
    column_of = {weights: column for column, weights in enumerate(shared)}
    of_mean = [column_of[id(mean.weights)] for mean in means]
    weights = np.stack([column[present] for column in shared.values()], axis=1)
    # An infinite sum times a count of 0 is NaN; percentile_interval reports both as overflow.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        blocks = [(counts @ sums) / (counts @ weights)[:, of_mean] for counts in draws]
    return np.concatenate(blocks)


def draw_counts(sequences: int, rng: np.random.Generator, resamples: int) -> Iterator[FloatArray]:
    """Blocks [rows, sequences]: how often each sequence was drawn, with replacement."""
    rows_per_block = max(1, DRAWS_PER_BLOCK // sequences)
    for done in range(0, resamples, rows_per_block):
        rows = min(rows_per_block, resamples - done)
        drawn = rng.integers(0, sequences, size=(rows, sequences))
        drawn += sequences * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * sequences)
        yield counts.reshape(rows, sequences).astype(np.float64)


def percentile_interval(values: FloatArray) -> Interval | Undefined:
    if not np.isfinite(values).all():
        return OVERFLOW
    low, high = np.quantile(values, TAILS)
    return Interval(low=float(low), high=float(high))
