"""Δ by the place of a token in its response, and by its probability, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.report_profiles import PROBABILITY_BINS
from driftscope_service.web.step.kept_tokens import KeptTokens

#: (from, below, tokens, mean |Δ|, mean Δ, largest |Δ|)
ProfileRow: TypeAlias = tuple[float, float, int, float, float, float]
#: 0, 1, 2, 3, 4, 6, 8, 12, …: two bins per octave, beyond the longest step that is accepted.
INDEX_EDGES: Final = np.array(
    [0, 1, 2, 3, *(edge for power in range(2, 25) for edge in (2**power, 3 * 2 ** (power - 1)))]
)
PROBABILITY_EDGES: Final = np.linspace(0.0, 1.0, PROBABILITY_BINS + 1)


@dataclass(slots=True)
class Profile:
    """Sums per bin; bin i holds edges[i] <= x < edges[i + 1]."""

    edges: NDArray[Any]
    counts: NDArray[np.int64] = field(init=False)
    abs_diff: NDArray[np.float64] = field(init=False)
    diff: NDArray[np.float64] = field(init=False)
    largest: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        bins = self.edges.size - 1
        self.counts = np.zeros(bins, dtype=np.int64)
        self.abs_diff, self.diff, self.largest = (np.zeros(bins) for _ in range(3))

    def add(self, tokens: KeptTokens, bin_of_token: NDArray[np.int64]) -> None:
        bins = self.counts.size
        self.counts += np.bincount(bin_of_token, minlength=bins)
        self.abs_diff += np.bincount(bin_of_token, tokens.abs_diff, minlength=bins)
        self.diff += np.bincount(bin_of_token, tokens.diff, minlength=bins)
        np.maximum.at(self.largest, bin_of_token, tokens.abs_diff)

    def rows(self) -> list[ProfileRow]:
        """Of bins with a token."""
        return [
            (
                self.edges[place].item(),
                self.edges[place + 1].item(),
                int(self.counts[place]),
                float(self.abs_diff[place] / self.counts[place]),
                float(self.diff[place] / self.counts[place]),
                float(self.largest[place]),
            )
            for place in np.flatnonzero(self.counts).tolist()
        ]


def index_bins(tokens: KeptTokens) -> NDArray[np.int64]:
    found = np.searchsorted(INDEX_EDGES, tokens.index, side="right") - 1
    return np.asarray(np.minimum(found, INDEX_EDGES.size - 2), dtype=np.int64)


def probability_bins(tokens: KeptTokens) -> NDArray[np.int64]:
    """The last bin also takes 1 and, of broken input, more."""
    probability = np.exp(np.minimum(tokens.rollout, 0.0))
    found = (probability * PROBABILITY_BINS).astype(np.int64)
    return np.asarray(np.minimum(found, PROBABILITY_BINS - 1), dtype=np.int64)
