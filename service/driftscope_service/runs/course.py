"""What the steps of a run say together: causes that no single step can name.

In: verdicts by step. Out: causes, most likely first, and the diagnosis of the last step with them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection

from driftscope_kernels.on_policy.weights.recorded import MATCHING
from driftscope_probes.diagnosis.cause import NAMED_FROM, Diagnosis, NamedCause
from driftscope_probes.diagnosis.over_steps import RunPoint, diagnose_run
from driftscope_service.numbers import diagnosis_words as words
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.runs.last_used import LastUsed
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import (
    StepRepository,
    StepVerdict,
    VerdictPoint,
    verdict_points,
)

#: A longer run is thinned evenly: looking at these takes some ten milliseconds.
MOST_POINTS: Final = 600
#: As many as drift is worked out over.
MOST_STEPS: Final = 10_000
#: A result takes a few kilobytes; more runs are rarely looked at side by side.
MOST_RUNS: Final = 64
_Point = TypeVar("_Point")
#: A last step that rounding explains has nothing that the others would have to explain.
HEALTHY: Final = ("bitwise_equal", "at_floor")


class RunCauses:
    """The causes of runs looked at last."""

    def __init__(self) -> None:
        self._causes: LastUsed[tuple[int, int | None], tuple[NamedCause, ...]] = LastUsed(MOST_RUNS)

    def of(
        self, run: Run, connection: Connection, *, attempt: int | None = None
    ) -> tuple[NamedCause, ...]:
        """`run` as `connection` sees it: its series, or one attempt."""

        def causes() -> tuple[NamedCause, ...]:
            points = verdict_points(connection, run.number, MOST_STEPS, attempt=attempt)
            return course_causes(points)

        return self._causes.get((run.number, attempt), causes, version=run.revision)


def run_diagnosis(causes: RunCauses, run: Run, connection: Connection) -> Diagnosis | None:
    """Of the last step, with what the steps show together; None where it was stored without one."""
    stored = None
    if run.last_step is not None:
        stored = StepRepository(connection).get(run.name, run.last_step)
    last = None
    if stored is not None:
        last = read_diagnosis(json.loads(stored.analysis).get("diagnosis"))
    return None if last is None else with_course(last, causes.of(run, connection))


def course_causes(points: Sequence[VerdictPoint]) -> tuple[NamedCause, ...]:
    """`points` ascending by step."""
    known = thinned([(point, point.verdict) for point in points if point.verdict is not None])
    attempts = [point.attempt for point, _ in known]
    return diagnose_run(
        [
            RunPoint(
                point.step,
                verdict.excess,
                entropy=verdict.entropy,
                cause=verdict.cause,
                resumed=attempt != before,
                weights_match=None if verdict.weights is None else verdict.weights in MATCHING,
            )
            for (point, verdict), attempt, before in zip(
                known, attempts, [*attempts[:1], *attempts], strict=False
            )
        ]
    )


def thinned(points: Sequence[_Point]) -> Sequence[_Point]:
    """At most MOST_POINTS, evenly spread, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def with_course(last: Diagnosis, causes: Sequence[NamedCause]) -> Diagnosis:
    """The diagnosis of the last step, and where the course of the run is surer of a cause, that.

    `causes`: of the course. They change nothing where rounding explains the last step.
    """
    if last.verdict in HEALTHY or not causes:
        return last
    surest: dict[str, NamedCause] = {}
    for cause in (*last.causes, *causes):
        known = surest.get(cause.name)
        if known is None or known.confidence < cause.confidence:
            surest[cause.name] = cause
    every = tuple(sorted(surest.values(), key=lambda cause: -cause.confidence))
    first = every[0]
    if first.confidence < NAMED_FROM:
        return dataclasses.replace(last, causes=every)
    sentence = last.sentence if first in last.causes else _sentence(last, first)
    return dataclasses.replace(last, causes=every, unexplained=False, sentence=sentence)


def named_by(verdict: StepVerdict | None, causes: Sequence[NamedCause]) -> StepVerdict | None:
    """The verdict on the last step with the cause of the run, where the course is surer of it."""
    if verdict is None or verdict.verdict in HEALTHY or not causes:
        return verdict
    first = causes[0]
    if first.confidence < NAMED_FROM or (verdict.confidence or 0.0) >= first.confidence:
        return verdict
    return dataclasses.replace(verdict, cause=first.name, confidence=first.confidence)


def _sentence(last: Diagnosis, cause: NamedCause) -> str:
    word = words.verdict_words(last.verdict)
    return (
        f"{word[:1].upper()}{word[1:]}: {cause.title}, as the steps together show "
        f"({cause.name}, {cause.confidence * 100:.0f} %; the last step at "
        f"{words.excess_words(last).partition(' (')[0]})."
    )
