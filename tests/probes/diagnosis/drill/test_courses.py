"""Courses of runs: when the noise rises, how it goes on, and the figures of what was said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.course_score import CourseAnswer, score_courses
from driftscope_probes.diagnosis.drill.courses import (
    COURSES,
    EARLIEST,
    LATEST,
    STEPS,
    Course,
    RunInjection,
)
from driftscope_probes.diagnosis.drill.damage import sigma
from driftscope_probes.diagnosis.drill.lab import Lab

#: In float32 a healthy step is a thousand times closer than the least course.
SETTING = Setting("tiny", "tiny-llama", "fp32", "fp32", sequences=4, max_tokens=12)
CLEAN = 1e-3  # nats
FAULTY = [course for course in COURSES if course.cause is not None]
EVENTS = [
    item for item in FAULTY if item.cause in ("dropped_tensor_on_reload", "sleep_wake_corruption")
]


@pytest.fixture(scope="module")
def lab(tiny_llama: Path) -> Lab:
    return Lab(tiny_llama, "fp32", "fp32", 0)


def made(course: RunInjection, lab: Lab, seed: int = 0) -> Course:
    return course.inject(lab, 0.5, np.random.default_rng(seed), SETTING)


def sizes(course: Course) -> list[float]:
    return [sigma(step.rollout, step.trainer) for step in course.steps]


def name(course: RunInjection) -> str:
    return f"{course.cause}-{course.way}"


@pytest.mark.parametrize("course", COURSES, ids=name)
def test_every_run_begins_clean_and_has_steps_of_its_own(lab: Lab, course: RunInjection) -> None:
    steps = made(course, lab).steps
    assert len(steps) == STEPS
    assert sigma(steps[0].rollout, steps[0].trainer) < CLEAN
    assert len({step.rollout.tobytes() for step in steps}) == STEPS
    worst = max(sizes(Course(steps)))
    assert (worst < CLEAN) is (course.cause is None)


@pytest.mark.parametrize("course", EVENTS, ids=name)
def test_an_event_is_a_jump_that_stays(lab: Lab, course: RunInjection) -> None:
    high = [size > CLEAN for size in sizes(made(course, lab))]
    at = high.index(True)
    assert EARLIEST <= at <= LATEST
    assert all(high[at:])


@pytest.mark.parametrize("way", ["a", "b"])
def test_a_resume_heals(lab: Lab, way: str) -> None:
    (course,) = (item for item in FAULTY if (item.cause, item.way) == ("resume_mismatch", way))
    told = []
    for seed in range(4):
        run = made(course, lab, seed)
        high = np.flatnonzero(np.array(sizes(run)) > CLEAN)
        assert 2 <= high.size <= 4 and np.ptp(high) == high.size - 1
        told.append(run.resumed)
        assert run.resumed in (None, high[0])
    assert len(set(map(bool, told))) == 2  # recorded in some runs and not in others


@pytest.mark.parametrize("way", ["a", "b"])
def test_weights_fall_further_behind_with_each_step(lab: Lab, way: str) -> None:
    (course,) = (item for item in FAULTY if (item.cause, item.way) == ("stale_engine_weights", way))
    size = np.array(sizes(made(course, lab)))
    assert size[-3:].mean() > 1.5 * size[3:6].mean() > 1.5 * 1.5 * size[1]


@pytest.mark.parametrize(
    "course", [c for c in COURSES if "cools" in c.description or "falls" in c.description], ids=name
)
def test_the_entropy_falls(lab: Lab, course: RunInjection) -> None:
    steps = made(course, lab).steps
    entropy = [
        float(step.extras.entropy.mean()) for step in steps if step.extras.entropy is not None
    ]
    assert entropy[-1] < 0.8 * entropy[0]


def run(cause: str | None, first: tuple[str, ...], confidence: float) -> CourseAnswer:
    return CourseAnswer(cause, "a", 0.5, "tiny", first, confidence, ())


def test_figures_by_hand() -> None:
    scored = score_courses(
        [
            run("resume_mismatch", ("resume_mismatch", "x"), 0.9),
            run("resume_mismatch", ("resume_mismatch",), 0.49),  # a candidate is no answer
            run("resume_mismatch", ("x",), 0.8),
            run("entropy_sharpening", (), 0.0),
            run(None, (), 0.0),
            run(None, ("x",), 0.5),
        ]
    )
    assert (scored.runs, scored.healthy) == (4, 2)
    assert (scored.top1, scored.healthy_false_alarms) == (0.25, 0.5)
    assert scored.by_cause == {
        "entropy_sharpening": {"nothing": 1},
        "healthy": {"nothing": 1, "x": 1},
        "resume_mismatch": {"resume_mismatch": 1, "nothing": 1, "x": 1},
    }
    empty = score_courses([])
    assert (empty.top1, empty.healthy_false_alarms) == (None, None)
