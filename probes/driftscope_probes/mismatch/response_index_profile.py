"""Difference along the response: does it grow with the tokens already generated?

In: TokenDifferences. Out: BinnedDifferences over the index in the response, from 0.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.binned_differences import BinnedDifferences, binned_differences
from driftscope_probes.mismatch.token_differences import TokenDifferences

MAX_BINS = 64  # one pixel column in ten of a plot; short responses get one bin per token


def response_index_profile(tokens: TokenDifferences) -> BinnedDifferences:
    """Bins of equal width, the last one may reach beyond the longest response."""
    index = tokens.response_index()
    places = int(index.max()) + 1 if index.size else 1
    width = -(-places // MAX_BINS)
    bins = -(-places // width)
    edges = width * np.arange(bins + 1, dtype=np.float64)
    return binned_differences(tokens, index // width, edges)
