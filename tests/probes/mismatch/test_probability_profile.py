from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.report_profiles import PROBABILITY_BINS, probability_profile
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import checked_tokens


def test_tokens_land_by_rollout_probability_and_broken_ones_at_the_top() -> None:
    rollout = np.array([np.log(0.01), np.log(0.07), np.log(0.99), 0.0, 0.5, 900.0])
    trainer = rollout + np.array([2.5, -1.5, 0.0, 0.0, 0.0, 0.0])
    profile = probability_profile(token_differences(checked_tokens(rollout, trainer, [0, 6])))
    assert profile.counts.tolist() == [1, 1] + [0] * (PROBABILITY_BINS - 3) + [4]
    np.testing.assert_allclose(profile.abs_diff_mean[[0, 1, -1]], [2.5, 1.5, 0.0])
    assert profile.edges[0] == 0 and profile.edges[-1] == 1
