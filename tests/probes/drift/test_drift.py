"""A run's numbers over steps: planted shifts, drifts, outliers and gaps, and quiet runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.drift import SERIES, StepValues, drift_of
from driftscope_probes.drift.metric import MAX_TOLD, MetricDrift
from driftscope_probes.mismatch import Extras, compare

NAME = "abs_diff_mean"


def reading(values: Any, *, name: str = NAME, first: int = 0) -> MetricDrift:
    points = [StepValues(first + step, {name: value}) for step, value in enumerate(values)]
    return drift_of(points).metrics[name]


def quiet(steps: int, *, seed: int = 0, spread: float = 0.1) -> np.ndarray[Any, Any]:
    return 0.012 * np.exp(np.random.default_rng(seed).normal(0, spread, steps))


def test_the_names_are_those_of_a_comparison() -> None:
    rng = np.random.default_rng(0)
    rollout = -rng.exponential(size=60)
    extras = Extras(
        entropy=rng.uniform(size=60), behavior_version=np.array([7, 6, 5]), train_version=7
    )
    names = compare(rollout, rollout - 0.01, [0, 10, 30, 60], extras=extras, resamples=0).to_dict()
    assert [name for name in SERIES if name not in names] == []


@pytest.mark.parametrize("name", SERIES)
def test_noise_is_steady_in_every_series(name: str) -> None:
    for seed in range(5):
        found = reading(quiet(400, seed=seed), name=name)
        assert (found.state, found.change_points, found.trend) == ("steady", (), None)


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("at", [30, 300])
def test_a_doubling_is_found_within_9_steps(factor: float, at: int) -> None:
    for seed in range(10):
        values = quiet(500, seed=seed)
        values[at:] *= factor
        found = reading(values, first=1000)
        (change,) = found.change_points
        assert found.state == "shifted"
        assert abs(change.step - 1000 - at) <= 2
        assert change.found_at <= 1000 + at + 8
        assert change.ratio == pytest.approx(factor, rel=0.1)
        assert (found.alarms, found.trend) == ((change.found_at,), None)
        assert found.baseline is not None
        assert found.baseline.center == pytest.approx(0.012, rel=0.15)


@pytest.mark.parametrize("per_step", [0.01, -0.01])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.2])
def test_a_percent_per_step_is_trending(per_step: float, spread: float) -> None:
    values = quiet(300, spread=spread) * (1 + per_step) ** np.arange(300)
    found = reading(values)
    assert (found.state, found.change_points) == ("trending", ())
    assert found.trend is not None and found.trend.from_step == 0
    assert found.trend.low <= (1 + per_step) ** 100 - 1 <= found.trend.high
    assert found.trend.p_value < 1e-4


def test_a_line_that_is_straight_in_the_unit_is_trending_as_well() -> None:
    """It is curved on the scale of logarithms: a staircase of shifts, told as what it is."""
    values = quiet(400, spread=0.05) * (1 + 0.02 * np.arange(400))
    assert reading(values).state == "trending"


@pytest.mark.parametrize("per_step", [0.05, 0.1, 0.3])
def test_a_steady_rise_from_the_first_step_is_trending(per_step: float) -> None:
    """On the scale of logarithms it bows so much that its bow passes for memory."""
    values = quiet(50, spread=0.05) * (1 + per_step * np.arange(50))
    assert reading(values).state == "trending"


def test_a_shift_and_then_a_drift() -> None:
    values = quiet(400)
    values[100:] *= 5
    values[250:] *= 1.01 ** np.arange(150)
    assert reading(values).state in ("shifted", "trending")
    assert 100 in [point.step for point in reading(values[:240]).change_points]


def test_a_growing_lag_is_told() -> None:
    """Weights that the engine gets ever later: behavior_version falls behind."""
    rng = np.random.default_rng(0)
    points = []
    for step in range(80):
        lag = rng.integers(0, 2, 16) + step // 10
        rollout = -rng.exponential(size=160)
        trainer = rollout + 0.01 * (1 + np.repeat(lag, 10)) * rng.normal(size=160)
        extras = Extras(behavior_version=step - lag, train_version=step)
        found = compare(rollout, trainer, np.arange(17) * 10, extras=extras, resamples=0)
        points.append(StepValues(step, found.to_dict()))
    drift = drift_of(points)
    assert drift.metrics["lag_mean"].state == "trending"
    trend = drift.metrics["lag_mean"].trend
    assert trend is not None and trend.low <= 10.0 <= trend.high
    assert drift.state == "trending"


@pytest.mark.parametrize("height", [1e3, 1e-6])
def test_one_huge_outlier_is_listed_and_no_shift(height: float) -> None:
    values = quiet(200)
    values[120] *= height
    found = reading(values)
    assert (found.state, found.outliers, found.alarms) == ("steady", (120,), ())


def test_the_first_difference_after_bitwise_equal_steps() -> None:
    found = reading([0.0] * 30 + [1e-7])
    (change,) = found.change_points
    assert (change.step, change.found_at, change.before, change.after) == (30, 30, 0.0, 1e-7)
    assert change.ratio is None
    assert found.state == "shifted"
    equal = reading([1.0] * 30 + [0.999], name="bitwise_equal_fraction")
    assert [point.step for point in equal.change_points] == [30]


def test_bitwise_equal_throughout_is_steady() -> None:
    found = reading([0.0] * 100)
    assert (found.state, found.baseline and found.baseline.center) == ("steady", 0.0)


def test_from_noise_to_bitwise_equal() -> None:
    found = reading([*quiet(100).tolist(), *[0.0] * 30])
    assert [point.step for point in found.change_points] == [100]
    assert found.change_points[0].ratio == 0.0


def test_what_is_told_has_a_size() -> None:
    """A level that jumps back and forth has hundreds of changes."""
    values = quiet(6000) * np.where(np.arange(6000) // 25 % 2, 20.0, 1.0)
    found = reading(values)
    assert found.changes > 200
    assert len(found.change_points) == len(found.alarms) == MAX_TOLD
    assert found.change_points[-1].step > 5900


def test_missing_values_and_gaps() -> None:
    values = quiet(300)
    values[150:] *= 3
    points = [
        StepValues(5 * step, {NAME: None if step % 7 == 0 else value})
        for step, value in enumerate(values.tolist())
        if not 200 <= step < 230
    ]
    found = drift_of(points).metrics[NAME]
    assert [point.step for point in found.change_points] == [5 * 150]
    assert found.missing == sum(point.values[NAME] is None for point in points)
    assert found.steps + found.missing == len(points)


def test_a_metric_without_any_value_is_not_there() -> None:
    assert drift_of([StepValues(0, {NAME: 0.1, "kl_k3": None})]).metrics.keys() == {NAME}


@pytest.mark.parametrize("steps", [0, 1, 5, 20])
def test_too_few_steps(steps: int) -> None:
    drift = drift_of([StepValues(s, {NAME: 0.1 + s}) for s in range(steps)])
    assert drift.state == "not_enough_steps"
    assert drift.to_dict()["steps"] == steps


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.none()
        | st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324])
        | st.floats(allow_nan=False),
        max_size=80,
    )
    | st.lists(
        st.sampled_from([0.0, 1.0, -1.0, 1e150, -1e150, 5e-324, 1e-200, 1e-10]),
        min_size=25,
        max_size=120,
    ),
    st.sampled_from(SERIES),
)
def test_any_values_give_json(values: list[float | None], name: str) -> None:
    points = [StepValues(step, {name: value}) for step, value in enumerate(values)]
    json.dumps(drift_of(points).to_dict(), allow_nan=False)


def test_imports_without_the_heavy_packages() -> None:
    code = (
        "import sys, driftscope_probes.drift, driftscope_probes.mismatch.thresholds\n"
        "sys.exit(bool({'torch', 'vllm', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
