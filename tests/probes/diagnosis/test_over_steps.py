"""The course of a run tells what no step tells alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.over_steps import FEW_STEPS, RunPoint, diagnose_run

Floats = NDArray[np.floating[Any]]
STEPS = np.arange(40)


def answer(
    excess: Floats, entropy: Floats | None = None, resumed: tuple[int, ...] = (), seed: int = 0
) -> list[tuple[str, float]]:
    noise = np.exp(0.1 * np.random.default_rng(seed).standard_normal(excess.size))
    points = [
        RunPoint(
            step,
            float(value),
            None if entropy is None else float(entropy[step]),
            step in resumed,
        )
        for step, value in enumerate(excess * noise)
    ]
    return [(cause.name, cause.confidence) for cause in diagnose_run(points)]


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_run_has_no_cause(seed: int) -> None:
    assert answer(np.ones(40), seed=seed) == []


@pytest.mark.parametrize("seed", range(5))
def test_growth_from_a_clean_first_step_is_a_sync_that_did_not_happen(seed: int) -> None:
    name, confidence = answer(1 + 0.5 * STEPS, seed=seed)[0]
    assert name == "stale_engine_weights" and confidence > 0.5


@pytest.mark.parametrize("at", [3, 12, 30])
def test_a_jump_that_stays_is_a_reload(at: int) -> None:
    assert answer(np.where(STEPS < at, 1.0, 15.0))[0][0] == "dropped_tensor_on_reload"


def test_garbage_from_a_step_on_is_a_wake_up() -> None:
    assert answer(np.where(STEPS < 10, 1.0, 300.0))[0][0] == "sleep_wake_corruption"


def test_a_jump_that_heals_is_a_resume() -> None:
    course = np.where((STEPS >= 20) & (STEPS < 25), 20.0, 1.0)
    untold = answer(course)[0]
    told = answer(course, resumed=(20,))[0]
    assert untold[0] == told[0] == "resume_mismatch"
    assert told[1] > untold[1] > 0.5


def test_growth_with_falling_entropy_is_sharpening() -> None:
    names = answer(np.exp(0.05 * STEPS), entropy=1.0 - 0.02 * STEPS)
    assert names[0][0] == "entropy_sharpening"


def test_a_policy_that_cools_at_the_floor_is_healthy() -> None:
    assert answer(0.4 * np.exp(0.02 * STEPS), entropy=1.0 - 0.02 * STEPS) == []


def test_what_the_steps_say_themselves_is_no_reload() -> None:
    points = [
        RunPoint(step, 1.0 if step < 12 else 15.0, cause=None if step < 12 else "off_by_one")
        for step in range(40)
    ]
    assert all(cause.confidence < 0.5 for cause in diagnose_run(points))


def test_few_steps_have_no_course() -> None:
    assert answer(np.array([1.0, 50.0, 90.0])[: FEW_STEPS - 1]) == []
    assert diagnose_run([RunPoint(step, None) for step in range(20)]) == ()
