"""Difference by rollout probability: rounding moves unlikely tokens more than likely ones.

In: TokenDifferences. Out: BinnedDifferences over exp(logp_rollout).
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.binned_differences import BinnedDifferences, binned_differences
from driftscope_probes.mismatch.token_differences import TokenDifferences

BINS = 20  # 5 % of probability each


def probability_profile(tokens: TokenDifferences) -> BinnedDifferences:
    """The last bin also takes probabilities of 1 and, of broken input, above 1."""
    bin_of_token = (np.minimum(tokens.rollout_prob, 1.0) * BINS).astype(np.int64)
    np.minimum(bin_of_token, BINS - 1, out=bin_of_token)
    return binned_differences(tokens, bin_of_token, np.linspace(0.0, 1.0, BINS + 1))
