"""Exact order statistics of |Δ| without sorting: wanted ranks, gathered bucket by bucket."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.fused.layouts import (
    BITS_IN_BUCKET,
    ODDITIES,
    SHIFT,
    TokenPass,
    Wanted,
    as_compiled,
    new_buckets,
    new_marks,
    new_scratch,
)
from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.tokens import Tokens


def gathered(
    pair: Tokens, wanted: tuple[Wanted, Wanted], sizes: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """|Δ| and ULP distances in the wanted buckets of each, which hold `sizes` of them."""
    from driftscope_probes.mismatch.fused.wanted_values import gather  # loads numba

    found = np.empty(sizes[0]), np.empty(sizes[1])
    gather(
        *as_compiled(pair),
        wanted,
        found,
        new_scratch(),
        new_buckets(),
        new_marks(),
        np.zeros(1, ODDITIES),
    )
    return found


# Up to here a bucket holds one whole number, its upper edge.
ONE_WHOLE_NUMBER_UP_TO = float(2 << BITS_IN_BUCKET)


@dataclass(frozen=True, slots=True, eq=False)
class OrderStatistics:
    """Values by rank, counted from 0 in rising order."""

    abs_diff: dict[int, float]  # nats
    ulp_distance: dict[int, float]


def order_statistics(
    pair: Tokens, found: TokenPass, diff_ranks: set[int], ulp_ranks: set[int]
) -> OrderStatistics:
    """The values of the given ranks, each below the number of kept tokens."""
    diffs = _Search(found.abs_diff_buckets, diff_ranks, exact_up_to=0.0)
    ulps = _Search(found.ulp_buckets, ulp_ranks, exact_up_to=ONE_WHOLE_NUMBER_UP_TO)
    values: tuple[FloatArray, FloatArray] = np.zeros(0), np.zeros(0)
    if diffs.tokens or ulps.tokens:
        values = gathered(pair, (diffs.wanted, ulps.wanted), (diffs.tokens, ulps.tokens))
    return OrderStatistics(diffs.values(values[0]), ulps.values(values[1]))


class _Search:
    """Which buckets hold the ranks, and the values of the ranks once those are gathered."""

    def __init__(self, buckets: IntArray, ranks: set[int], exact_up_to: float) -> None:
        self.ranks = np.array(sorted(ranks), dtype=np.int64)
        reached = np.cumsum(buckets)
        self.bucket_of_rank = np.searchsorted(reached, self.ranks, side="right")
        self.upper_edges = (self.bucket_of_rank << SHIFT).view(np.float64)
        self.is_exact = self.upper_edges <= exact_up_to
        needed = np.unique(self.bucket_of_rank[~self.is_exact])
        self.wanted: Wanted = needed.astype(np.uint32)
        # Of each needed bucket, how many tokens come before it, less how many gathered values do.
        held = buckets[needed]
        self.tokens = int(held.sum())
        self.not_gathered = reached[needed] - np.cumsum(held)

    def values(self, gathered_values: FloatArray) -> dict[int, float]:
        found = self.upper_edges.copy()
        bucket = np.searchsorted(self.wanted, self.bucket_of_rank[~self.is_exact])
        places = self.ranks[~self.is_exact] - self.not_gathered[bucket]
        if places.size:
            gathered_values.partition(np.unique(places))
            found[~self.is_exact] = gathered_values[places]
        return dict(zip(self.ranks.tolist(), found.tolist(), strict=True))
