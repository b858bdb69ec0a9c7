"""Counts for plots: histograms of differences, and one side against the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.fused.layouts import BITS_IN_BUCKET, EXPONENT_BIAS, TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, FloatArray, IntArray, Undefined
from driftscope_probes.mismatch.sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences

# Edges are 2^k and 1.5·2^k: exact in binary, so that the bucket is read off the top bits of the
# number and no rounding of a logarithm can put a token on the other side of an edge.
LOWEST_EXPONENT = -40  # 9.1e-13 nats: far below float32 rounding of any but certain tokens
HIGHEST_EXPONENT = 6  # 64 nats: beyond it one side considers the sampled token impossible
BUCKETS_PER_OCTAVE = 2  # six to seven bars per decade

BUCKETS = (HIGHEST_EXPONENT - LOWEST_EXPONENT) * BUCKETS_PER_OCTAVE
FINE_PER_BUCKET = (1 << BITS_IN_BUCKET) // BUCKETS_PER_OCTAVE
FIRST_FINE = ((LOWEST_EXPONENT + EXPONENT_BIAS) << BITS_IN_BUCKET) + 1  # the one above EDGES[0]

EDGES: tuple[float, ...] = tuple(
    (1 + index % BUCKETS_PER_OCTAVE / BUCKETS_PER_OCTAVE)
    * 2.0 ** (LOWEST_EXPONENT + index // BUCKETS_PER_OCTAVE)
    for index in range(BUCKETS + 1)
)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Bucket i holds EDGES[i] < |Δ| <= EDGES[i + 1]: upper edges belong to it, as in Prometheus."""

    zero: int  # |Δ| exactly 0
    below: int  # 0 < |Δ| <= EDGES[0]
    counts: IntArray  # [BUCKETS]
    above: int  # |Δ| > EDGES[-1]
    abs_diff_sum: float  # nats

    @staticmethod
    def empty() -> Histogram:
        return Histogram(0, 0, np.zeros(BUCKETS, dtype=np.int64), 0, 0.0)

    @property
    def tokens(self) -> int:
        return self.zero + self.below + int(self.counts.sum()) + self.above

    def rows(self) -> list[tuple[float, float, int]]:
        """(above, up to, tokens) from the first bucket with a token to the last; without zeros."""
        counts = [self.below, *self.counts.tolist(), self.above]
        edges = [0.0, *EDGES, math.inf]
        filled = [bucket for bucket, count in enumerate(counts) if count]
        buckets = range(filled[0], filled[-1] + 1) if filled else ()
        return [(edges[bucket], edges[bucket + 1], counts[bucket]) for bucket in buckets]

    def merged(self, other: Histogram) -> Histogram:
        return Histogram(
            zero=self.zero + other.zero,
            below=self.below + other.below,
            counts=self.counts + other.counts,
            above=self.above + other.above,
            abs_diff_sum=self.abs_diff_sum + other.abs_diff_sum,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "edges": list(EDGES),
            "zero": self.zero,
            "below": self.below,
            "counts": self.counts.tolist(),
            "above": self.above,
            "abs_diff_sum": self.abs_diff_sum if np.isfinite(self.abs_diff_sum) else None,
        }


def abs_diff_histogram(found: TokenPass) -> Histogram:
    """Sums of whole fine buckets, whose edges include these."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(found.sums["abs_diff"].sum())
    fine = found.abs_diff_buckets
    inside = fine[FIRST_FINE : FIRST_FINE + BUCKETS * FINE_PER_BUCKET]
    return Histogram(
        zero=int(fine[0]),
        below=int(fine[1:FIRST_FINE].sum()),
        counts=inside.reshape(BUCKETS, FINE_PER_BUCKET).sum(axis=1),
        above=int(fine[FIRST_FINE + inside.size :].sum()),
        abs_diff_sum=total,
    )


def quantile_bracket(
    histogram: Histogram, share: float, largest: float
) -> tuple[float, float] | Undefined:
    """Contains the linearly interpolated quantile that abs_diff_p… reports.

    largest: the largest |Δ|, nats. It closes the open bucket at the top.
    """
    counts = [histogram.zero, histogram.below, *histogram.counts.tolist(), histogram.above]
    total = sum(counts)
    if not total:
        return NO_TOKENS
    lower = (0.0, 0.0, *EDGES)
    upper = (0.0, *EDGES, math.inf)
    reached = np.cumsum(counts)
    position = share * (total - 1)
    first = int(np.searchsorted(reached, math.floor(position), side="right"))
    last = int(np.searchsorted(reached, math.ceil(position), side="right"))
    return lower[first], min(upper[last], largest)


# Multiples of the golden ratio modulo 1 spread evenly for every length and, unlike a fixed
# stride, do not fall into step with sequences of equal length.
GOLDEN_FRACTION = 0.6180339887498949


def even_sample(size: int, limit: int) -> IntArray:
    """At most `limit` of the indices 0 … size − 1; all of them where they fit."""
    if size <= limit:
        return np.arange(size)
    indices = (np.arange(limit) * GOLDEN_FRACTION % 1.0 * size).astype(np.int64)
    return np.unique(indices)


MAX_TOKEN_POINTS = 256
# Kept apart from the sample, which would otherwise show a heavier tail than the data have.
LARGEST_POINTS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    rollout_prob: FloatArray  # [points]
    diff: FloatArray  # [points] Δ, nats

    def to_dict(self) -> dict[str, Any]:
        return {"rollout_prob": self.rollout_prob.tolist(), "diff": self.diff.tolist()}


@dataclass(frozen=True, slots=True)
class DifferenceScatter:
    sample: Points  # evenly spread over the tokens
    largest: Points  # the largest |Δ|, falling

    def to_dict(self) -> dict[str, Any]:
        return {"sample": self.sample.to_dict(), "largest": self.largest.to_dict()}


def difference_scatter(tokens: TokenDifferences) -> DifferenceScatter:
    """Tokens whose rollout probability overflows are left out of the plot."""
    sample = even_sample(tokens.diff.size, MAX_TOKEN_POINTS)
    return DifferenceScatter(
        sample=_points(tokens, sample), largest=_points(tokens, _largest(tokens.abs_diff))
    )


def _points(tokens: TokenDifferences, indices: IntArray) -> Points:
    plottable = indices[np.isfinite(tokens.rollout_prob[indices])]
    return Points(rollout_prob=tokens.rollout_prob[plottable], diff=tokens.diff[plottable])


def _largest(abs_diff: FloatArray) -> IntArray:
    count = min(LARGEST_POINTS, abs_diff.size)
    if not count:
        return np.zeros(0, dtype=np.int64)
    threshold = np.partition(abs_diff, abs_diff.size - count)[abs_diff.size - count]
    candidates = np.flatnonzero(abs_diff >= threshold)
    # Stable: among equals the earlier token comes first, whatever the partition did.
    order = np.argsort(-abs_diff[candidates], kind="stable")
    return candidates[order[:count]]


MAX_SEQUENCE_POINTS = 256
EXTREME_SEQUENCES = 2


@dataclass(frozen=True, slots=True, eq=False)
class SequencePoints:
    """The extremes are always among the points; the other ones are spread evenly."""

    length: IntArray  # [points] n_i
    seq_logratio: FloatArray  # [points] S_i, nats

    def to_dict(self) -> dict[str, Any]:
        return {"length": self.length.tolist(), "seq_logratio": self.seq_logratio.tolist()}


def sequence_points(sums: SequenceSums) -> SequencePoints:
    finite = np.flatnonzero(np.isfinite(sums.diff))
    indices = finite[even_sample(finite.size, MAX_SEQUENCE_POINTS - EXTREME_SEQUENCES)]
    if indices.size < finite.size:
        extremes = finite[[np.argmin(sums.diff[finite]), np.argmax(sums.diff[finite])]]
        indices = np.union1d(indices, extremes)
    return SequencePoints(length=sums.length[indices], seq_logratio=sums.diff[indices])
