from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch.report_profiles import MAX_BINS, response_index_profile
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import checked_tokens


def test_a_drift_that_grows_along_the_response_shows_per_token() -> None:
    drift = np.array([0.0, 0.25, 0.5, 0.75, 0.0, 0.25, 0.5])
    pair = checked_tokens(np.full(7, -1.0), -1.0 + drift, [0, 4, 4, 7])
    profile = response_index_profile(token_differences(pair))
    assert profile.edges.tolist() == [0, 1, 2, 3, 4]
    assert profile.counts.tolist() == [2, 2, 2, 1]
    assert profile.diff_mean.tolist() == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 1000, 8191])
def test_bins_are_bounded_and_hold_every_token(length: int) -> None:
    pair = checked_tokens(np.full(length, -1.0), np.full(length, -1.5), [0, length])
    profile = response_index_profile(token_differences(pair))
    assert profile.counts.size <= MAX_BINS
    assert profile.counts.sum() == length and profile.counts.min() > 0
    assert profile.edges[-1] >= length


def test_no_tokens_give_one_empty_bin() -> None:
    profile = response_index_profile(token_differences(checked_tokens([0.0], [np.nan], [0, 1])))
    assert profile.to_dict()["abs_diff_mean"] == [None]
