"""The sentence about a run: limits first, then what moved, then that nothing did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.drift import SERIES, StepValues, drift_of
from driftscope_service.runs.pages.run_state import run_state

CROSSED = {"metric": "kl_k3", "value": 0.2, "limit": 0.015, "direction": "above", "source": "s"}


def _drift(
    steps: int = 80, jump_at: int | None = None, slope: float = 0.0, late: int = 0
) -> dict[str, Any]:
    """late: steps without a value of abs_diff_max."""
    random = np.random.default_rng(0)
    points = []
    for step in range(steps):
        factor = (3.0 if jump_at is not None and step >= jump_at else 1.0) * np.exp(slope * step)
        values = dict.fromkeys(SERIES, None) | {
            "kl_k3": 1e-3 * factor * np.exp(random.normal(0, 0.05)),
            "abs_diff_max": 0.3 * np.exp(random.normal(0, 0.05)) if step >= late else None,
        }
        points.append(StepValues(step, values))
    return drift_of(points).to_dict()


def test_nothing_moved() -> None:
    state = run_state(79, [], _drift())
    assert (state.tone, state.word) == ("good", "steady")
    assert state.sentence == "Within every limit, and no number has moved over 80 steps."


def test_what_was_not_looked_at_is_not_called_unmoved() -> None:
    state = run_state(11, [], _drift(12))
    assert (state.tone, state.word) == ("none", "too few steps")
    assert state.sentence == (
        "Within every limit; 12 steps are too few to tell drift from noise: only a large jump "
        "would show so far."
    )
    assert "too few to compare" in run_state(1, [], _drift(2)).sentence
    assert "1 step is too few" in run_state(1, [], _drift(1)).sentence
    unknown = run_state(79, [], _drift(late=70)).sentence
    assert unknown.endswith("over 80 steps; too few values to tell: largest |Δ| (10).")


@pytest.mark.parametrize("jump_at", [2, 5, 11])
def test_a_jump_among_the_first_steps_is_told(jump_at: int) -> None:
    state = run_state(59, [], _drift(60, jump_at=jump_at))
    assert state.word == "shifted" and f"at step {jump_at}" in state.sentence


def test_no_step_and_too_few() -> None:
    assert run_state(None, [], None).word == "no steps"
    assert run_state(9, [], _drift(10)).word == "too few steps"
    assert run_state(9, [], None).word == "within limits"


def test_a_shift_is_told_with_both_levels_and_its_step() -> None:
    drift = _drift(jump_at=50)
    state = run_state(79, [], drift)
    assert (state.tone, state.word) == ("watch", "shifted")
    assert "at step 50" in state.sentence and "k3" in state.sentence
    assert "moved from 0.00100 to 0.0029" in state.sentence and "times)" in state.sentence


def test_a_trend_is_told_with_its_slope() -> None:
    state = run_state(79, [], _drift(slope=0.01))
    assert state.word == "trending"
    assert "has grown from 0.00" in state.sentence and "since step 0" in state.sentence


def test_limits_come_first_and_many_are_counted() -> None:
    state = run_state(7, [CROSSED], _drift(jump_at=50))
    assert (state.tone, state.word) == ("bad", "beyond limits")
    assert state.sentence.startswith("Step 7 is beyond a published limit: k3")
    assert "0.200 nats (limit 0.0150 nats); k3" in state.sentence
    many = run_state(7, [CROSSED, {**CROSSED, "value": None}, CROSSED, CROSSED], None)
    assert "4 published limits" in many.sentence and "2 more" in many.sentence
    assert "not finite" in many.sentence
