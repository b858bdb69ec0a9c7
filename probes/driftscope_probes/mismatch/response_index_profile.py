"""Difference along the response: does it grow with the tokens already generated?

In: TokenDifferences. Out: BinnedDifferences over the index in the response, from 0.
"""

from __future__ import annotations

from driftscope_probes.mismatch.binned_differences import BinnedDifferences
from driftscope_probes.mismatch.index_profile import MAX_BINS, index_profile
from driftscope_probes.mismatch.token_differences import TokenDifferences

__all__ = ["MAX_BINS", "response_index_profile"]


def response_index_profile(tokens: TokenDifferences) -> BinnedDifferences:
    """Bins of equal width, the last one may reach beyond the longest response."""
    return index_profile(tokens, tokens.response_index(), 0)
