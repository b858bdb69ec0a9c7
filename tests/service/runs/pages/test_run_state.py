"""The sentence about a run: limits first, then what moved, then that nothing did."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftscope_probes.drift import SERIES, StepValues, drift_of
from driftscope_service.runs.pages.run_state import movements, run_state

CROSSED = {"metric": "kl_k3", "value": 0.2, "limit": 0.015, "direction": "above", "source": "s"}


def _drift(steps: int = 80, jump_at: int | None = None, slope: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(0)
    points = []
    for step in range(steps):
        factor = (3.0 if jump_at is not None and step >= jump_at else 1.0) * np.exp(slope * step)
        values = dict.fromkeys(SERIES, None) | {
            "kl_k3": 1e-3 * factor * np.exp(random.normal(0, 0.05)),
            "abs_diff_max": 0.3 * np.exp(random.normal(0, 0.05)),
        }
        points.append(StepValues(step, values))
    return drift_of(points).to_dict()


def test_nothing_moved() -> None:
    state = run_state(79, [], _drift())
    assert (state.tone, state.word) == ("good", "steady")
    assert state.sentence == "Within every limit, and no number has moved over 80 steps."


def test_no_step_and_too_few() -> None:
    assert run_state(None, [], None).word == "no steps"
    assert run_state(9, [], _drift(10)).word == "too few steps"
    assert run_state(9, [], None).word == "within limits"


def test_a_shift_is_told_with_both_levels_and_its_step() -> None:
    drift = _drift(jump_at=50)
    state = run_state(79, [], drift)
    assert (state.tone, state.word) == ("watch", "shifted")
    assert "at step 50" in state.sentence and "k3" in state.sentence
    (movement,) = movements(drift)
    assert (movement.metric, movement.kind, movement.step) == ("kl_k3", "shifted", 50)
    assert movement.what.startswith("from 0.00100 to 0.0029")
    assert movement.what.endswith("times")


def test_a_trend_is_told_with_its_slope() -> None:
    state = run_state(79, [], _drift(slope=0.01))
    assert state.word == "trending"
    assert "per 100 steps" in state.sentence and "+" in state.sentence


def test_limits_come_first_and_many_are_counted() -> None:
    state = run_state(7, [CROSSED], _drift(jump_at=50))
    assert (state.tone, state.word) == ("bad", "beyond limits")
    assert state.sentence.startswith("Step 7 is beyond a published limit: k3")
    assert "0.200 nats (limit 0.0150); k3" in state.sentence
    many = run_state(7, [CROSSED, {**CROSSED, "value": None}, CROSSED, CROSSED], None)
    assert "4 published limits" in many.sentence and "2 more" in many.sentence
    assert "not finite" in many.sentence
