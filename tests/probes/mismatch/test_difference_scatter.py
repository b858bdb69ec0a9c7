from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.histogram import (
    LARGEST_POINTS,
    MAX_TOKEN_POINTS,
    difference_scatter,
)
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import checked_tokens


def test_small_batches_are_shown_whole_and_the_largest_come_first() -> None:
    rollout = np.log([0.5, 0.25, 0.125])
    pair = checked_tokens(rollout, rollout + [0.1, -0.4, 0.4], [0, 3])
    scatter = difference_scatter(token_differences(pair))
    np.testing.assert_allclose(scatter.sample.diff, [0.1, -0.4, 0.4])
    np.testing.assert_allclose(scatter.sample.rollout_prob, [0.5, 0.25, 0.125])
    assert set(np.abs(scatter.largest.diff[:2]).round(9)) == {0.4}


def test_large_batches_are_bounded_and_the_tail_is_complete() -> None:
    rng = np.random.default_rng(2)
    rollout = np.log(rng.random(50_000))
    diff = rng.normal(size=50_000)
    tokens = token_differences(checked_tokens(rollout, rollout + diff, [0, 50_000]))
    scatter = difference_scatter(tokens)
    assert 0.9 * MAX_TOKEN_POINTS < scatter.sample.diff.size <= MAX_TOKEN_POINTS
    expected = sorted(np.abs(tokens.diff).tolist(), reverse=True)[:LARGEST_POINTS]
    assert np.abs(scatter.largest.diff).tolist() == expected


def test_probabilities_that_overflow_cannot_be_plotted() -> None:
    pair = checked_tokens(np.array([900.0, -1.0]), np.array([901.0, -1.5]), [0, 2])
    scatter = difference_scatter(token_differences(pair))
    assert scatter.sample.diff.tolist() == scatter.largest.diff.tolist() == [-0.5]
