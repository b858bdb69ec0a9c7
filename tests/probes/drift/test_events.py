"""One event per point in time: first and strongest numbers, the rest folded; what a resume did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.drift import SERIES, Drift, Event, StepValues, drift_of
from driftscope_probes.mismatch import compare

MEAN, MAX = "abs_diff_mean", "abs_diff_max"


def run(numbers: dict[str, Any], first: int = 1, resumed_at: tuple[int, ...] = ()) -> Drift:
    steps = len(next(iter(numbers.values())))
    points = [
        StepValues(first + row, {name: float(values[row]) for name, values in numbers.items()})
        for row in range(steps)
    ]
    return drift_of(points, resumed_at=resumed_at)


def quiet(steps: int, seed: int = 0, level: float = 0.02) -> Any:
    return level * np.exp(np.random.default_rng(seed).normal(0, 0.1, steps))


def moved_in(event: Event) -> set[str]:
    return {one.metric for one in event.moved}


@pytest.mark.parametrize("at", [2, 3, 5, 11, 12, 18, 21, 25, 40])
def test_a_wrong_weight_from_any_step_on_is_one_event(at: int) -> None:
    """Every number that follows from the tokens, not one made up alone."""
    rng = np.random.default_rng(at)
    points = []
    for step in range(1, 61):
        size = (0.002 if step < at else 0.018) * np.exp(0.1 * rng.standard_normal())
        rollout = -rng.exponential(0.9, 1024)
        trainer = np.minimum(rollout + size / 0.8 * rng.standard_normal(1024), -1e-6)
        found = compare(rollout, trainer, np.arange(17) * 64, resamples=0)
        points.append(StepValues(step, found.to_dict()))
    (event,) = drift_of(points).events
    assert (event.kind, event.step, event.low, event.high) == ("shift", at, at, at)
    assert event.found_at <= at + 5
    assert len(event.numbers) == 3 and {MEAN, MAX, "kl_k3"} <= moved_in(event)


def test_two_points_in_time_are_two_events() -> None:
    values, other = quiet(100), quiet(100, 1)
    values[30:] *= 4
    other[30:] *= 3
    other[70:] *= 3
    first, second = run({MEAN: values, MAX: other}).events
    assert (first.step, moved_in(first)) == (31, {MEAN, MAX})
    assert (second.step, moved_in(second)) == (71, {MAX})


def test_the_sharpest_number_dates_the_event_and_inputs_come_first() -> None:
    """Weights that are no longer copied: the lag says when, the differences follow."""
    rows = np.arange(1, 61)
    grown = np.maximum(0, rows - 17)
    numbers = {
        MEAN: quiet(60) * np.exp(0.07 * grown),
        MAX: quiet(60, 1) * np.exp(0.07 * grown),
        "lag_mean": grown,
        "stale_token_share": (grown > 0).astype(float),
        "confident_disagreement_share": np.where(rows > 40, 0.002, 0.0),
    }
    (event,) = run(numbers).events
    assert (event.kind, event.step, event.low, event.high) == ("growth", 18, 18, 18)
    assert [one.metric for one in event.numbers[:2]] == ["lag_mean", "stale_token_share"]
    assert event.numbers[0].kind == "growth" and event.numbers[0].after > 40
    # What a growth brings with it later is not an event of its own.
    (late,) = [one for one in event.moved if one.metric == "confident_disagreement_share"]
    assert late.step == 41


def test_single_tokens_that_are_equal_now_and_then_are_no_event() -> None:
    values = np.zeros(36)
    values[[9, 14, 19]] = 0.002
    assert run({"bitwise_equal_fraction": values}).events == ()
    assert run({"confident_disagreement_share": values}).events == ()


def test_a_lag_of_three_steps_grows_already() -> None:
    (event,) = run({"lag_mean": [0.0] * 20 + [1.0, 2.0, 3.0]}).events
    assert (event.kind, event.step) == ("growth", 21)


def test_a_new_jump_during_a_growth_is_an_event_of_its_own() -> None:
    rows = np.arange(1, 121)
    values = quiet(120) * np.exp(0.03 * np.maximum(0, rows - 40))
    values[90:] *= 6
    events = run({MEAN: values}).events
    assert [event.step for event in events] == [pytest.approx(41, abs=3), 91]


def test_a_growth_from_the_first_step_on_is_an_event_there() -> None:
    (event,) = run({MEAN: quiet(100) * 1.02 ** np.arange(100)}).events
    assert (event.kind, event.step) == ("growth", 1)
    assert event.numbers[0].after > 3 * event.numbers[0].before


def test_a_resume_says_which_numbers_moved_and_when_they_returned() -> None:
    values, other = quiet(80), quiet(80, 1)
    values[40:45] = 1.2
    drift = run({MEAN: values, MAX: other}, resumed_at=(41,))
    (event,) = drift.events
    assert (event.kind, event.step, moved_in(event)) == ("resume", 41, {MEAN})
    (moved,) = event.numbers
    assert (moved.after, moved.returned_at) == (1.2, 46)
    assert moved.before == pytest.approx(0.02, rel=0.1)
    # It came and went with the resume: no change of level is told besides.
    assert drift.metrics[MEAN].change_points == () and drift.state == "steady"
    assert drift.resumed_at == (41,)


@pytest.mark.parametrize("factor", [1.6, 8.0])
def test_a_number_that_stays_where_a_resume_put_it(factor: float) -> None:
    values = quiet(100)
    values[40:] *= factor
    drift = run({MEAN: values}, resumed_at=(41, 61))
    first, second = drift.events
    assert (first.kind, moved_in(first)) == ("resume", {MEAN})
    assert first.numbers[0].returned_at is None and drift.state == "shifted"
    assert (second.step, second.numbers) == (61, ())


def test_the_second_of_two_resumes_moved_something() -> None:
    values = quiet(100)
    values[70:73] *= 10
    quiet_one, loud = run({MEAN: values}, resumed_at=(41, 71)).events
    assert quiet_one.numbers == () and loud.numbers[0].returned_at == 74


def test_a_fault_after_a_resume_is_dated_for_itself() -> None:
    values = quiet(100)
    values[70:] *= 4
    resume, fault = run({MEAN: values}, resumed_at=(41,)).events
    assert (resume.kind, resume.numbers) == ("resume", ())
    assert (fault.kind, fault.step) == ("shift", 71)


def test_resumes_move_nothing_in_noise() -> None:
    numbers = 0
    for seed in range(40):
        events = run({MEAN: quiet(90, seed)}, resumed_at=(31, 61)).events
        assert [event.kind for event in events] == ["resume", "resume"]
        numbers += sum(len(event.moved) for event in events)
    assert numbers <= 1


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(
        st.none() | st.sampled_from([0.0, 1.0, float("nan"), 1e308]) | st.floats(0, 10),
        min_size=1,
        max_size=70,
    ),
    resumed_at=st.lists(st.integers(-5, 90), max_size=4),
    name=st.sampled_from(SERIES),
)
def test_any_resumes_of_any_values(
    values: list[float | None], resumed_at: list[int], name: str
) -> None:
    points = [StepValues(step, {name: value}) for step, value in enumerate(values)]
    drift = drift_of(points, resumed_at=resumed_at)
    inside = sorted({step for step in resumed_at if 0 < step < len(values)})
    assert drift.resumed_at == tuple(inside)
    assert [event.step for event in drift.events if event.kind == "resume"] == inside
    steps = [event.step for event in drift.events]
    assert steps == sorted(steps)
    for event in drift.events:
        assert event.low <= event.step <= event.high <= len(values)
        assert all(one.low <= one.step <= one.high for one in event.moved)


@settings(max_examples=30, deadline=None)
@given(at=st.integers(2, 60), factor=st.floats(3.0, 10.0), seed=st.integers(0, 1000))
def test_a_planted_shift_is_one_event_at_its_step(at: int, factor: float, seed: int) -> None:
    values = quiet(90, seed)
    values[at - 1 :] *= factor
    (event,) = run({MEAN: values}).events
    assert event.kind == "shift" and abs(event.step - at) <= 1
    assert event.low <= at <= event.high
