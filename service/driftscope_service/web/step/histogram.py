"""Counts of |Δ| in the buckets of a report, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.histogram import BUCKETS, EDGES
from driftscope_service.web.step.kept_tokens import KeptTokens

#: Two buckets per octave are the exponent and the top bit of the 52 of a float64's fraction.
_SHIFT: Final = np.uint64(51)
_LOWEST: Final = int(np.float64(EDGES[0]).view(np.uint64) >> _SHIFT)


@dataclass(slots=True)
class HistogramCounts:
    """Bucket i holds EDGES[i] < |Δ| <= EDGES[i + 1]; zeros apart."""

    zero: int = 0
    counts: NDArray[np.int64] = field(
        # Below the first edge, the buckets, above the last edge.
        default_factory=lambda: np.zeros(BUCKETS + 2, dtype=np.int64)
    )

    def add(self, tokens: KeptTokens) -> None:
        positive = tokens.abs_diff[tokens.abs_diff > 0]
        self.zero += tokens.abs_diff.size - positive.size
        # One bit less puts an edge itself into the bucket below it.
        bucket = ((positive.view(np.uint64) - np.uint64(1)) >> _SHIFT).astype(np.int64)
        place = np.clip(bucket - _LOWEST + 1, 0, BUCKETS + 1)
        self.counts += np.bincount(place, minlength=BUCKETS + 2)

    def rows(self) -> list[tuple[float, float, int]]:
        """(above, up to, tokens) from the first bucket with a token to the last."""
        filled = np.flatnonzero(self.counts)
        if not filled.size:
            return []
        edges = [0.0, *EDGES, float("inf")]
        return [
            (edges[place], edges[place + 1], int(self.counts[place]))
            for place in range(int(filled[0]), int(filled[-1]) + 1)
        ]
