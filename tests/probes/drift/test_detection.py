"""Changes of level: planted ones are found, noise has none, and what was told stays told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.drift.changes import changes_of
from driftscope_probes.drift.cusum import normal_score
from driftscope_probes.drift.detection import LevelChange, Noise, level_changes
from driftscope_probes.drift.split import LATE

PLAIN = Noise(zero=0.0)


def noise(steps: int, *, seed: int = 0, memory: float = 0.0) -> list[float]:
    rng = np.random.default_rng(seed)
    shocks = math.sqrt(1 - memory**2) * rng.normal(size=steps + 100)
    values = [float(shocks[0])]
    for shock in shocks[1:]:
        values.append(memory * values[-1] + float(shock))
    return values[100:]


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_noise_has_no_change(memory: float) -> None:
    """100,000 steps: the published rate is far below one in this many."""
    told = 0
    for seed in range(100):
        values = noise(1000, seed=seed, memory=memory)
        detected = level_changes(values, Noise(zero=0.0, typical=1.0)).changes
        told += len(changes_of(np.array(values), detected, 1.0))
    assert told <= 2


@pytest.mark.parametrize("size", [4.0, -4.0, 7.0])
@pytest.mark.parametrize(("at", "within"), [(40, 15), (500, 8)])
def test_a_shift_is_placed_and_found_soon(size: float, at: int, within: int) -> None:
    for seed in range(20):
        values = noise(700, seed=seed)
        values[at:] = [value + size for value in values[at:]]
        (change,) = level_changes(values, PLAIN).changes
        assert abs(change.at - at) <= 2
        assert change.found_at <= at + within


def test_a_shift_there_and_back_is_two() -> None:
    values = noise(600)
    values[200:400] = [value + 6 for value in values[200:400]]
    changes = level_changes(values, PLAIN).changes
    assert [change.at for change in changes] == pytest.approx([200, 400], abs=1)


@pytest.mark.parametrize("height", [20.0, -20.0, 1e6])
@pytest.mark.parametrize("width", [1, 2])
def test_outliers_are_listed_and_no_shift(height: float, width: int) -> None:
    values = noise(300)
    values[150 : 150 + width] = [height] * width
    found = level_changes(values, PLAIN)
    assert found.changes == ()
    assert set(range(150, 150 + width)) <= set(found.outliers)


def test_an_outlier_in_the_warm_up_blinds_nothing() -> None:
    values = noise(300)
    values[10] = 1e6
    values[150:] = [value + 6 for value in values[150:]]
    assert [change.at for change in level_changes(values, PLAIN).changes] == pytest.approx(
        [150], abs=1
    )


def test_the_first_other_value_after_zeros_is_a_change() -> None:
    assert level_changes([0.0] * 5 + [1e-9], PLAIN).changes == (LevelChange(5, 5),)
    assert level_changes([0.0] * 100 + [1e-9, 0.0, 0.0], PLAIN).changes == (LevelChange(100, 100),)
    assert level_changes([0.0] * 4 + [1e-9], PLAIN).changes == ()


def test_rare_events_are_one_change_and_then_outliers() -> None:
    values = [0.0] * 400
    values[100] = values[200] = values[300] = 1e-6
    found = level_changes(values, PLAIN)
    assert (found.changes, found.outliers) == ((LevelChange(100, 100),), (200, 300))


def test_a_constant_changes_when_it_stays_changed() -> None:
    assert level_changes([3.0] * 50, PLAIN).changes == ()
    found = level_changes([3.0] * 50 + [4.0] + [3.0] * 50, PLAIN)
    assert (found.changes, found.outliers) == ((), (50,))
    found = level_changes([3.0] * 50 + [4.0] * 3, PLAIN)
    assert (found.changes, found.outliers) == ((LevelChange(50, 52),), ())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shifts=st.lists(st.tuples(st.integers(0, 299), st.floats(-20, 20)), max_size=3),
    end=st.integers(1, 300),
)
def test_what_was_found_stays_found(seed: int, shifts: list[tuple[int, float]], end: int) -> None:
    values = noise(300, seed=seed)
    for at, size in shifts:
        values[at:] = [value + size for value in values[at:]]
    whole, prefix = level_changes(values, PLAIN), level_changes(values[:end], PLAIN)
    start = 0
    for told, at_the_end in zip(prefix.changes, whole.changes, strict=False):
        if end < start + LATE:
            break  # judged anew with every step
        assert told == at_the_end
        start = told.at
    if end >= start + LATE:
        assert prefix.changes == tuple(c for c in whole.changes if c.found_at < end)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e150, 1e-300, -690.0]) | st.floats(-1e9, 1e9)),
)
def test_any_series_is_read(values: list[float]) -> None:
    found = level_changes(values, PLAIN)
    for change in found.changes:
        assert 0 < change.at <= change.found_at < len(values)


def test_values_that_hardly_differ() -> None:
    assert level_changes([1.0, 1.0 + 5e-16] * 30, PLAIN).changes == ()
    assert level_changes([0.0, 5e-324] * 30, PLAIN).changes == ()


@pytest.mark.parametrize(
    ("t", "freedom", "exact"),
    # From the exact distribution functions: tail of t(freedom) → normal quantile.
    [(1.0, 19, 0.9740), (3.0, 19, 2.6834), (-3.0, 19, -2.6834), (4.0, 100, 3.8457)],
)
def test_student_to_normal(t: float, freedom: int, exact: float) -> None:
    assert normal_score(t, freedom) == pytest.approx(exact, abs=0.02)
