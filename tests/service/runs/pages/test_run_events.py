"""Events in words: the step with its interval, the first numbers told, the rest folded, resumes."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftscope_probes.drift import StepValues, drift_of
from driftscope_service.runs.pages.run_events import event_rows, event_sentence
from driftscope_service.runs.pages.run_state import run_state


def _drift(
    numbers: dict[str, list[float]], resumed_at: tuple[int, ...] = (), first: int = 1
) -> dict[str, Any]:
    steps = len(next(iter(numbers.values())))
    points = [
        StepValues(first + index, {name: values[index] for name, values in numbers.items()})
        for index in range(steps)
    ]
    return drift_of(points, resumed_at=resumed_at).to_dict()


def _noise(steps: int, seed: int = 0, level: float = 0.02) -> list[float]:
    rng = np.random.default_rng(seed)
    return [level * float(np.exp(shock)) for shock in rng.normal(0, 0.1, steps)]


NAMES = ("abs_diff_mean", "abs_diff_p99", "abs_diff_max", "kl_k3", "prob_abs_diff_mean")


def test_one_row_per_point_in_time() -> None:
    numbers = {name: _noise(60, seed) for seed, name in enumerate(NAMES)}
    for values in numbers.values():
        values[17:] = [4 * value for value in values[17:]]
    (row,) = event_rows(_drift(numbers))
    assert (row.step, row.interval, row.kind) == (18, "", "shifted")
    assert len(row.told) == 3 and len(row.folded) == 2
    assert {one.metric for one in row.told + row.folded} == set(NAMES)
    assert row.told[0].what.startswith("moved from 0.0") and "times)" in row.told[0].what


def test_a_date_that_is_not_sure_has_its_interval() -> None:
    values = [v * np.exp(0.05 * max(0, i - 39)) for i, v in enumerate(_noise(80))]
    drift = _drift({"abs_diff_mean": values})
    (row,) = event_rows(drift)
    low, high = (int(end) for end in row.interval.split(" to "))
    assert low <= 41 <= high and row.kind == "growing"
    assert f"since step {row.step} ({row.interval})" in event_sentence(drift["events"][0])


def test_a_lag_that_grows_is_not_a_shift_from_0_to_10() -> None:
    lag = [float(max(0, step - 17)) for step in range(1, 37)]
    drift = _drift({"lag_mean": lag})
    (row,) = event_rows(drift)
    assert (row.step, row.kind) == (18, "growing")
    assert "has grown from 0 to 18" in run_state(36, [], drift).sentence
    assert "since step 18" in run_state(36, [], drift).sentence


def test_a_resume_says_how_far_and_for_how_long() -> None:
    values = _noise(80)
    values[40:45] = [1.2] * 5
    drift = _drift({"abs_diff_mean": values, "abs_diff_max": _noise(80, 1)}, resumed_at=(41, 60))
    later, row = event_rows(drift)
    assert (row.step, row.kind) == (41, "resumed")
    assert row.told[0].what.startswith("1.20 nats for 5 steps, then back at 0.0")
    assert row.told[0].what.endswith("from step 46")
    assert (later.step, later.told, later.folded) == (60, [], [])
    state = run_state(80, [], drift)
    assert (state.tone, state.word) == ("watch", "moved at a resume")
    assert "1.20 nats for 5 steps" in state.sentence and "resume at step 41" in state.sentence


def test_a_resume_that_left_a_number_elsewhere() -> None:
    values = _noise(80)
    values[40:] = [3 * value for value in values[40:]]
    drift = _drift({"abs_diff_mean": values}, resumed_at=(41,))
    state = run_state(80, [], drift)
    assert state.word == "shifted" and "ever since after the resume at step 41" in state.sentence


def test_a_resume_that_moved_nothing_is_no_alarm() -> None:
    drift = _drift({"abs_diff_mean": _noise(80)}, resumed_at=(41,))
    assert run_state(80, [], drift).word == "steady"
    (row,) = event_rows(drift)
    assert (row.kind, row.told) == ("resumed", [])
