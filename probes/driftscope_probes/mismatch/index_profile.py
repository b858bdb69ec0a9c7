"""Difference by a whole number that each token carries: its index, position or turn.

In: one integer per token and TokenDifferences. Out: BinnedDifferences of bounded size.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.arrays import IntArray
from driftscope_probes.mismatch.binned_differences import BinnedDifferences, binned_differences
from driftscope_probes.mismatch.token_differences import TokenDifferences

MAX_BINS = 64  # one pixel column in ten of a plot; few places get one bin each


def index_profile(tokens: TokenDifferences, index: IntArray, first: int) -> BinnedDifferences:
    """index: [kept]; bins of equal width from `first` on, the last one may reach beyond the end."""
    places = int(index.max()) + 1 - first if index.size else 1
    width = -(-places // MAX_BINS)
    bins = -(-places // width)
    edges = first + width * np.arange(bins + 1, dtype=np.float64)
    return binned_differences(tokens, (index - first) // width, edges)


def index_profile_from_smallest(tokens: TokenDifferences, index: IntArray) -> BinnedDifferences:
    return index_profile(tokens, index, int(index.min()) if index.size else 0)
