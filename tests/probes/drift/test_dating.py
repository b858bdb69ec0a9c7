"""The date of a change by all values around it, with an interval that holds as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.drift.changes import changes_of
from driftscope_probes.drift.dating import dated, growth_at, shift_at
from driftscope_probes.drift.detection import LevelChange, Noise, level_changes
from driftscope_probes.drift.split import best_split
from driftscope_probes.mismatch.number import FloatArray

PLAIN = Noise(zero=0.0, typical=1.0)


def noise(rng: np.random.Generator, steps: int, memory: float = 0.0) -> FloatArray:
    values = [float(rng.normal())]
    for shock in (np.sqrt(1 - memory**2) * rng.normal(size=steps - 1)).tolist():
        values.append(memory * values[-1] + shock)
    return np.array(values)


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_shifts_are_dated_within_one_step_and_the_interval_holds(memory: float) -> None:
    rng = np.random.default_rng(0)
    off, held = [], []
    for _ in range(150):
        at = int(rng.integers(3, 75))
        values = noise(rng, 80, memory)
        values[at:] += 4.0
        # Found beside the truth, as an alarm places it.
        when = dated(shift_at(values, min(79, max(1, at + int(rng.integers(-3, 4))))).posterior)
        off.append(abs(when.at - at))
        held.append(when.low <= at <= when.high)
    assert np.mean(np.array(off) <= 1) >= 0.93
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize(("slope", "wide"), [(0.3, 12), (1.0, 4)])
def test_knees_are_dated_and_the_interval_holds(slope: float, wide: int) -> None:
    rng = np.random.default_rng(1)
    held, widths, errors = [], [], []
    for _ in range(60):
        at = int(rng.integers(15, 55))
        values = noise(rng, 80) + slope * np.maximum(0, np.arange(80) - at + 1)
        when = dated(growth_at(values).posterior)
        held.append(when.low <= at <= when.high)
        widths.append(when.high - when.low)
        errors.append(when.at - at)
    assert np.mean(held) >= 0.9
    assert np.median(widths) <= wide
    assert abs(np.mean(errors)) <= 1.0


def test_an_outlier_does_not_move_a_date() -> None:
    values = noise(np.random.default_rng(2), 60)
    values[30:] += 6.0
    values[[27, 34]] = 1e6
    assert dated(shift_at(values, 32).posterior).at == 30


def test_an_exact_ramp_is_dated_exactly() -> None:
    values = np.maximum(0.0, np.arange(40.0) - 16)
    when = dated(growth_at(values).posterior)
    assert (when.at, when.low, when.high) == (17, 17, 17)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=60),
    guess=st.integers(1, 59),
)
def test_any_values_have_a_date_within(values: list[float], guess: int) -> None:
    series = np.array(values)
    guess = min(guess, series.size - 1)
    for fit in (shift_at(series, guess), growth_at(series)):
        when = dated(fit.posterior)
        assert 1 <= when.low <= when.at <= when.high < series.size
        assert fit.posterior.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("at", [2, 4, 10, 17, 24, 39])
def test_the_first_values_are_looked_at(at: int) -> None:
    for seed in range(5):
        values = noise(np.random.default_rng(seed), 60)
        values[at:] += 20.0
        split = best_split(values, 1.0)
        assert split is not None and split.at == at and split.score > 5.0
        found = level_changes(values.tolist(), PLAIN).changes
        (change,) = changes_of(values, found, 1.0)
        assert (change.kind, change.at, change.low, change.high) == ("shift", at, at, at)
        assert change.found_at <= at + 4


@pytest.mark.parametrize("at", [15, 40, 100])
@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_a_broken_line_is_one_growth_at_its_knee(at: int, slope: float) -> None:
    for seed in range(5):
        values = noise(np.random.default_rng(seed), at + 40)
        values += slope * np.maximum(0, np.arange(values.size) - at + 1)
        found = level_changes(values.tolist(), PLAIN).changes
        (change,) = changes_of(values, found, 1.0)
        assert change.kind == "growth"
        assert change.low <= at <= change.high and abs(change.at - at) <= 4
        assert change.grows_until == values.size


def test_the_date_is_stable_as_the_series_grows() -> None:
    values = noise(np.random.default_rng(3), 200)
    values[30:] += 5.0
    for end in (36, 40, 60, 100, 200):
        found = level_changes(values[:end].tolist(), PLAIN).changes
        assert [change.at for change in changes_of(values[:end], found, 1.0)] == [30]


def test_what_all_values_do_not_confirm_is_no_change() -> None:
    values = noise(np.random.default_rng(4), 100)
    assert changes_of(values, [LevelChange(40, 45)], 1.0) == ()


@pytest.mark.parametrize("tread", [1, 3, 10, 60])
def test_a_staircase_is_one_growth(tread: int) -> None:
    """A lag that grows by one every so many steps."""
    values = np.maximum(0, (np.arange(20 + 6 * tread) - 20) // tread + 1).astype(float)
    found = level_changes(values.tolist(), Noise(zero=0.0)).changes
    (change,) = changes_of(values, found)
    assert change.kind == "growth" and abs(change.at - 20) <= max(1, tread // 2)


def test_far_apart_steps_of_unlike_size_are_shifts() -> None:
    values = noise(np.random.default_rng(5), 800)
    for at, size in ((100, 5.0), (300, 12.0), (650, 5.0)):
        values[at:] += size
    found = level_changes(values.tolist(), PLAIN).changes
    assert [(one.kind, one.at) for one in changes_of(values, found, 1.0)] == [
        ("shift", 100),
        ("shift", 300),
        ("shift", 650),
    ]


@pytest.mark.parametrize(("begin", "end"), [(2, 7), (4, 9), (10, 15), (25, 40), (70, 75)])
def test_a_stretch_that_ended_is_two_changes(begin: int, end: int) -> None:
    """Neither half of the run has another level than the other."""
    for seed in range(5):
        values = noise(np.random.default_rng(seed), 120)
        values[begin:end] += 14.0
        found = level_changes(values.tolist(), PLAIN).changes
        assert [one.at for one in changes_of(values, found, 1.0)] == [begin, end]
