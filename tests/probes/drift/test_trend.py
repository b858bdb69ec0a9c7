"""Theil–Sen and Mann–Kendall against plain loops, and on planted lines."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from driftscope_probes.drift.trend import MIN_STEPS, trend
from driftscope_probes.mismatch.number import FloatArray


def places(steps: int) -> FloatArray:
    return np.arange(steps, dtype=np.float64)


def plain_slope(steps: list[float], values: list[float]) -> float:
    pairs = itertools.combinations(zip(steps, values, strict=True), 2)
    return float(np.median([(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs]))


def test_slope_is_the_median_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 5, MIN_STEPS)).astype(float)
    values = rng.normal(size=MIN_STEPS)
    assert trend(steps, values).slope == plain_slope(steps.tolist(), values.tolist())


def test_p_value_of_white_noise_without_memory() -> None:
    """40 values in falling then rising order by turns: the correction finds no memory, so the
    plain Mann–Kendall test must come out."""
    values = np.array([place * (-1.0) ** place for place in range(40)]) + np.arange(40) * 0.5
    pairs = itertools.combinations(values.tolist(), 2)
    signs = sum((later > earlier) - (later < earlier) for earlier, later in pairs)
    deviation = math.sqrt(40 * 39 * 85 / 18)
    expected = math.erfc((abs(signs) - 1) / deviation / math.sqrt(2))
    assert trend(places(40), values).p_value == pytest.approx(expected)


@pytest.mark.parametrize("steps", [MIN_STEPS, 200, 201, 5000])
def test_a_line_in_noise(steps: int) -> None:
    at = places(steps)
    values = 0.05 * at + np.random.default_rng(1).normal(0, 0.1, steps)
    found = trend(at, values)
    assert found.low <= found.slope <= found.high
    assert found.slope == pytest.approx(0.05, rel=0.02)
    assert found.p_value < 1e-6


def test_the_interval_holds_the_truth_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    at = places(60)
    found = [trend(at, 0.02 * at + rng.normal(size=60)) for _ in range(300)]
    assert np.mean([one.low <= 0.02 <= one.high for one in found]) >= 0.93


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_p_values_of_noise_are_not_too_small(memory: float) -> None:
    rng = np.random.default_rng(4)
    small = 0
    for _ in range(300):
        values = [0.0]
        for shock in rng.normal(size=149).tolist():
            values.append(memory * values[-1] + shock)
        small += trend(places(150), np.array(values)).p_value < 0.01
    assert small <= 9  # 3 expected at most


def test_a_constant_has_no_trend() -> None:
    found = trend(places(50), np.full(50, 3.0))
    assert (found.slope, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_outliers_do_not_tilt_it() -> None:
    at = places(100)
    values: FloatArray = 0.1 * at
    values[[3, 50, 97]] = [1e6, -1e6, 1e6]
    assert trend(at, values).slope == pytest.approx(0.1)
