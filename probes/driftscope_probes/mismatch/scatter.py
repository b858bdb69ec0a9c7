"""Points for plots, of bounded number: Δ against rollout probability, sequences against length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.mismatch.sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences

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
