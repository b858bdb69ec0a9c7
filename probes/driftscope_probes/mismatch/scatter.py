"""Scatter of Δ against rollout probability: a bounded sample, and the largest |Δ| of all.

In: TokenDifferences. Out: points for a plot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.even_sample import even_sample
from driftscope_probes.mismatch.token_differences import TokenDifferences

MAX_POINTS = 256
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
    sample = even_sample(tokens.diff.size, MAX_POINTS)
    return DifferenceScatter(
        sample=_points(tokens, sample), largest=_points(tokens, _largest(tokens.abs_diff))
    )


def _points(tokens: TokenDifferences, places: IntArray) -> Points:
    plottable = places[np.isfinite(tokens.rollout_prob[places])]
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
