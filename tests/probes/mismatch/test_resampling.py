from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.mismatch import SequenceMean, Undefined, compare, ratio_interval
from driftscope_probes.mismatch.number import OVERFLOW
from driftscope_probes.mismatch.resampling import (
    DRAWS_PER_BLOCK,
    ONE_SEQUENCE,
    ZERO_MEAN,
    Interval,
    RatioInterval,
    mean_intervals,
)

SEQUENCES, TOKENS_EACH, TRIALS = 60, 30, 200
KNOWN_MEAN = 0.02
# 200 trials at 95 % spread by 1.5 points (one standard deviation); percentile intervals of 60
# sequences cover a little less than they promise.
LEAST_COVERAGE, MOST_COVERAGE = 0.90, 0.985


def coverage(clustered: bool) -> float:
    """Share of trials whose interval holds the known mean; tokens of a sequence share a drift."""
    rng = np.random.default_rng(20)
    hits = 0
    for trial in range(TRIALS):
        drift = rng.normal(KNOWN_MEAN, 0.01, (SEQUENCES, 1))
        diff = drift + rng.normal(0, 0.01, (SEQUENCES, TOKENS_EACH))
        sums = diff.sum(axis=1) if clustered else diff.ravel()
        weights = np.full(sums.size, TOKENS_EACH if clustered else 1.0)
        mean = SequenceMean(sums, weights)
        interval = mean_intervals({"diff_mean": mean}, resamples=200, seed=trial)["diff_mean"]
        assert isinstance(interval, Interval)
        hits += interval.low <= KNOWN_MEAN <= interval.high
    return hits / TRIALS


def test_interval_covers_a_known_mean_as_often_as_it_promises() -> None:
    assert LEAST_COVERAGE <= coverage(clustered=True) <= MOST_COVERAGE


def test_drawing_single_tokens_would_cover_far_too_rarely() -> None:
    assert coverage(clustered=False) < 0.6


def test_equals_a_plain_loop_over_the_same_draws() -> None:
    rng = np.random.default_rng(3)
    sums, weights = rng.random(7), rng.integers(1, 9, 7).astype(float)
    found = mean_intervals({"x": SequenceMean(sums, weights)}, resamples=500, seed=11)["x"]
    draws = np.random.default_rng(11).integers(0, 7, size=(500, 7)).tolist()
    means = [sum(sums[i] for i in row) / sum(weights[i] for i in row) for row in draws]
    assert isinstance(found, Interval)
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())


def test_many_sequences_are_drawn_in_blocks() -> None:
    sums = np.random.default_rng(4).random(1 + DRAWS_PER_BLOCK // 3)
    mean = SequenceMean(sums, np.ones(sums.size))
    found = mean_intervals({"x": mean}, resamples=7, seed=0)["x"]
    assert isinstance(found, Interval)
    assert found.low <= 0.5 + 1e-3 and found.high >= 0.5 - 1e-3
    assert found.high - found.low < 5e-3


def test_same_seed_same_interval_other_seed_another() -> None:
    mean = SequenceMean(np.linspace(0, 1, 20), np.ones(20))
    first, again = (mean_intervals({"x": mean}, resamples=100, seed=5) for _ in range(2))
    assert first == again
    assert first != mean_intervals({"x": mean}, resamples=100, seed=6)


def test_empty_sequences_are_never_drawn() -> None:
    dense = SequenceMean(np.array([1.0, 2, 3, 4, 5]), np.ones(5))
    sparse = SequenceMean(np.array([1, 0, 2, 3, 0, 4, 5.0]), np.array([1, 0, 1, 1, 0, 1, 1.0]))
    assert mean_intervals({"x": dense}, resamples=50, seed=1) == mean_intervals(
        {"x": sparse}, resamples=50, seed=1
    )


def test_undefined_intervals_say_why() -> None:
    one = SequenceMean(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert mean_intervals({"x": one}, resamples=10, seed=0) == {"x": ONE_SEQUENCE}
    endless = SequenceMean(np.array([1.0, np.inf]), np.ones(2))
    assert mean_intervals({"x": endless}, resamples=50, seed=0) == {"x": OVERFLOW}


def test_joint_draws_cancel_what_two_cells_share() -> None:
    rng = np.random.default_rng(8)
    difficulty = rng.gamma(2.0, size=40)
    first = SequenceMean(8 * difficulty * rng.uniform(0.95, 1.05, 40), np.full(40, 10.0))
    second = SequenceMean(difficulty, np.full(40, 10.0))
    joint = ratio_interval(first, second)
    apart = ratio_interval(first, SequenceMean(second.sums[:-1], second.weights[:-1]))
    assert isinstance(joint, RatioInterval) and isinstance(apart, RatioInterval)
    assert joint.joint and not apart.joint
    assert joint.low < joint.ratio < joint.high
    assert joint.ratio == pytest.approx(8, rel=0.02)
    assert joint.high - joint.low < 0.2 * (apart.high - apart.low)


def test_ratio_of_a_cell_to_itself_is_exactly_one() -> None:
    mean = SequenceMean(np.array([0.1, 0.7, 0.3]), np.array([3.0, 1.0, 2.0]))
    assert ratio_interval(mean, mean) == RatioInterval(ratio=1.0, low=1.0, high=1.0, joint=True)


def test_ratio_interval_covers_a_known_ratio() -> None:
    hits = 0
    rng = np.random.default_rng(12)
    for trial in range(TRIALS):
        difficulty = rng.gamma(2.0, size=SEQUENCES)
        first = SequenceMean(6 * difficulty * rng.gamma(9, 1 / 9, SEQUENCES), np.ones(SEQUENCES))
        second = SequenceMean(difficulty * rng.gamma(9, 1 / 9, SEQUENCES), np.ones(SEQUENCES))
        found = ratio_interval(first, second, resamples=200, seed=trial)
        assert isinstance(found, RatioInterval)
        hits += found.low <= 6 <= found.high
    assert LEAST_COVERAGE <= hits / TRIALS <= MOST_COVERAGE


def test_ratio_to_nothing_is_undefined() -> None:
    some, none = SequenceMean(np.ones(5), np.ones(5)), SequenceMean(np.zeros(5), np.ones(5))
    assert ratio_interval(some, none) == ZERO_MEAN
    single = SequenceMean(np.ones(1), np.ones(1))
    assert ratio_interval(some, single) == ONE_SEQUENCE
    endless = SequenceMean(np.full(5, np.inf), np.ones(5))
    assert ratio_interval(endless, some) == OVERFLOW
    half = np.array([1.0, 1.0, 0.0])
    assert isinstance(
        ratio_interval(SequenceMean(half, half), SequenceMean(np.ones(3), np.ones(3))), Undefined
    )


@pytest.mark.parametrize("resamples", [-1, 10**9])
def test_settings_out_of_range_are_refused(resamples: int) -> None:
    with pytest.raises(RequestError, match=r"accepted are 0 to 100000"):
        compare(np.zeros(1), np.zeros(1), [0, 1], resamples=resamples)
