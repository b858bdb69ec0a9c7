from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch import Extras, profiles
from driftscope_probes.mismatch.report_profiles import MAX_BINS, index_profile_from_smallest
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import checked_tokens


def test_turns_and_positions_of_the_tokens_that_count() -> None:
    drift = np.array([0.0, 0.25, 0.5, 9.0, 0.5])
    extras = Extras(
        turn_ids=np.array([0, 1, 2, 2, 2]),
        position_ids=np.array([100, 101, 102, 103, 104]),
        behavior_version=np.array([3, 1]),
        train_version=3,
    )
    mask = np.array([1, 1, 1, 0, 1])
    found = profiles(np.full(5, -1.0), -1.0 + drift, [0, 2, 5], mask, extras=extras).to_dict()
    assert found["by_turn"]["diff_mean"] == [0.0, 0.25, 0.5]
    assert found["by_turn"]["counts"] == [1, 1, 2]
    assert found["by_position"]["edges"] == [100, 101, 102, 103, 104, 105]
    assert found["by_position"]["counts"] == [1, 1, 1, 0, 1]
    assert found["by_lag"]["abs_diff_mean"] == [0.125, 0.5]


def test_without_extras_their_plots_are_not_there() -> None:
    found = profiles(np.zeros(2), np.zeros(2), [0, 2]).to_dict()
    assert not {"by_turn", "by_position", "by_lag"} & found.keys()


@pytest.mark.parametrize("index", [[-(2**31), 2**31 - 1, 0], [5, 5, 5], [-3, -2, -1]])
def test_bins_are_bounded_and_hold_every_token(index: list[int]) -> None:
    tokens = token_differences(checked_tokens(np.zeros(3), np.ones(3), [0, 3]))
    found = index_profile_from_smallest(tokens, np.array(index))
    assert found.counts.size <= MAX_BINS and found.counts.sum() == 3
    assert found.edges[0] == min(index) and found.edges[-1] > max(index)
