"""Profiles: the plots of a comparison as numbers of bounded size, by index or probability."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import (
    DifferenceScatter,
    Histogram,
    SequencePoints,
    abs_diff_histogram,
    difference_scatter,
    sequence_points,
)
from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.mismatch.staleness import LagBuckets, lag_buckets_of
from driftscope_probes.mismatch.sums import sequence_sums
from driftscope_probes.mismatch.token_differences import TokenDifferences, token_differences
from driftscope_probes.tokens import Extras, Tokens, checked_tokens


@dataclass(frozen=True, slots=True, eq=False)
class BinnedDifferences:
    """Bin i holds edges[i] <= x < edges[i + 1]; means of empty bins are NaN here, null in JSON."""

    edges: FloatArray  # [bins + 1]
    counts: IntArray  # [bins] tokens
    abs_diff_mean: FloatArray  # [bins] nats
    diff_mean: FloatArray  # [bins] nats

    def to_dict(self) -> dict[str, Any]:
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "abs_diff_mean": _json_numbers(self.abs_diff_mean),
            "diff_mean": _json_numbers(self.diff_mean),
        }


@dataclass(slots=True)
class BinnedSums:
    """Bins of Δ, block by block; bin i holds edges[i] <= x < edges[i + 1]."""

    edges: NDArray[Any]  # [bins + 1]
    counts: IntArray = field(init=False)  # [bins] tokens
    abs_diff: FloatArray = field(init=False)  # [bins] nats
    diff: FloatArray = field(init=False)  # [bins] nats
    largest: FloatArray = field(init=False)  # [bins] of |Δ|, nats

    def __post_init__(self) -> None:
        bins = self.edges.size - 1
        self.counts = np.zeros(bins, dtype=np.int64)
        self.abs_diff, self.diff, self.largest = (np.zeros(bins) for _ in range(3))

    def add(self, tokens: TokenDifferences, bin_of_token: IntArray) -> None:
        bins = self.counts.size
        assert not bin_of_token.size or 0 <= bin_of_token.min() <= bin_of_token.max() < bins
        self.counts += np.bincount(bin_of_token, minlength=bins)
        with np.errstate(invalid="ignore", over="ignore"):
            self.abs_diff += np.bincount(bin_of_token, tokens.abs_diff, minlength=bins)
            self.diff += np.bincount(bin_of_token, tokens.diff, minlength=bins)
        np.maximum.at(self.largest, bin_of_token, tokens.abs_diff)

    def means(self) -> BinnedDifferences:
        with np.errstate(invalid="ignore"):
            means = self.abs_diff / self.counts, self.diff / self.counts
        return BinnedDifferences(self.edges, self.counts, *means)

    def rows(self) -> list[tuple[float, float, int, float, float, float]]:
        """(from, below, tokens, mean |Δ|, mean Δ, largest |Δ|) of bins with a token."""
        filled = self.counts > 0
        counts = self.counts[filled]
        means = self.abs_diff[filled] / counts, self.diff[filled] / counts
        edges = self.edges[:-1][filled], self.edges[1:][filled]
        columns = (*edges, counts, *means, self.largest[filled])
        return list(zip(*(column.tolist() for column in columns), strict=True))


def binned_differences(
    tokens: TokenDifferences, bin_of_token: IntArray, edges: FloatArray
) -> BinnedDifferences:
    sums = BinnedSums(edges)
    sums.add(tokens, bin_of_token)
    return sums.means()


def _json_numbers(values: FloatArray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


MAX_BINS = 64  # one pixel column in ten of a plot; few indices get one bin each


def index_profile(tokens: TokenDifferences, index: IntArray, first: int) -> BinnedDifferences:
    """index: [kept]; bins of equal width from `first` on, the last one may reach beyond the end."""
    count = int(index.max()) + 1 - first if index.size else 1
    width = -(-count // MAX_BINS)
    bins = -(-count // width)
    edges = first + width * np.arange(bins + 1, dtype=np.float64)
    return binned_differences(tokens, (index - first) // width, edges)


def index_profile_from_smallest(tokens: TokenDifferences, index: IntArray) -> BinnedDifferences:
    return index_profile(tokens, index, int(index.min()) if index.size else 0)


def response_index_profile(tokens: TokenDifferences) -> BinnedDifferences:
    """Bins of equal width, the last one may reach beyond the longest response."""
    return index_profile(tokens, tokens.response_index(), 0)


PROBABILITY_BINS = 20  # 5 % of probability each
PROBABILITY_EDGES = np.linspace(0.0, 1.0, PROBABILITY_BINS + 1)


def probability_bins(rollout_prob: FloatArray) -> IntArray:
    """The last bin also takes probabilities of 1 and, of broken input, above 1."""
    bin_of_token = (np.minimum(rollout_prob, 1.0) * PROBABILITY_BINS).astype(np.int64)
    return np.minimum(bin_of_token, PROBABILITY_BINS - 1, out=bin_of_token)


def probability_profile(tokens: TokenDifferences) -> BinnedDifferences:
    return binned_differences(tokens, probability_bins(tokens.rollout_prob), PROBABILITY_EDGES)


@dataclass(frozen=True, slots=True)
class Profiles:
    abs_diff_histogram: Histogram
    by_response_index: BinnedDifferences
    by_rollout_prob: BinnedDifferences
    sequences: SequencePoints
    scatter: DifferenceScatter
    by_position: BinnedDifferences | None = None  # where position_ids were given
    by_turn: BinnedDifferences | None = None  # where turn_ids were given
    by_lag: LagBuckets | None = None  # where behavior_version was given

    def to_dict(self) -> dict[str, Any]:
        optional = {
            "by_position": self.by_position,
            "by_turn": self.by_turn,
            "by_lag": self.by_lag,
        }
        return {
            "abs_diff_histogram": self.abs_diff_histogram.to_dict(),
            "by_response_index": self.by_response_index.to_dict(),
            "by_rollout_prob": self.by_rollout_prob.to_dict(),
            "sequences": self.sequences.to_dict(),
            "scatter": self.scatter.to_dict(),
            **{name: part.to_dict() for name, part in optional.items() if part is not None},
        }


def profiles(
    rollout_logprobs: ArrayLike,
    trainer_logprobs: ArrayLike,
    cu_seqlens: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    extras: Extras | None = None,
) -> Profiles:
    """Arguments and errors as for compare()."""
    return profiles_of(checked_tokens(rollout_logprobs, trainer_logprobs, cu_seqlens, mask, extras))


def profiles_of(tokens: Tokens) -> Profiles:
    extras = tokens.extras
    differences, found = token_differences(tokens), token_pass(tokens)
    sums = sequence_sums(found)
    return Profiles(
        abs_diff_histogram=abs_diff_histogram(found),
        by_response_index=response_index_profile(differences),
        by_rollout_prob=probability_profile(differences),
        sequences=sequence_points(sums),
        scatter=difference_scatter(differences),
        by_position=_by_index(differences, extras.position_ids),
        by_turn=_by_index(differences, extras.turn_ids),
        by_lag=lag_buckets_of(tokens, sums),
    )


def _by_index(
    tokens: TokenDifferences, index: NDArray[np.integer[Any]] | None
) -> BinnedDifferences | None:
    if index is None:
        return None
    return index_profile_from_smallest(tokens, tokens.kept(index).astype(np.int64, copy=False))
