"""Which attempt of its run a pushed step or shard belongs to, and what arrived of it there.

A push that names its attempt belongs there. One that names none belongs where its step stands in
the series, or to the newest attempt; other content for a step that stands is a run that was
started again, and opens an attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.analysis import RunFacts
from driftscope_service.runs.store.attempts import (
    FROM_SCRATCH,
    NO_STEPS,
    Attempt,
    AttemptRepository,
)
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import StepRepository, StoredStep
from driftscope_service.runs.store.uploads import Shard, ShardRepository

#: Two processes that push the same steps of one run, without shards, look like a run that is
#: started again at every step. A run that crashes in a loop begins at the same step each time, so
#: that it is only a few steps in a row, each an attempt of hardly any length, that give it away.
SHORT_ATTEMPT_STEPS: Final = 2
STEPS_IN_A_ROW: Final = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a push belongs, and what has arrived there."""

    run: Run | None
    attempt: int
    named: bool  # the push says which attempt it is of
    step: StoredStep | None
    shards: Sequence[Shard]

    @property
    def facts(self) -> RunFacts:
        if self.run is None:
            return RunFacts()
        return RunFacts(self.run.model, self.run.rollout_dtype, self.run.trainer_dtype)


def place_of(connection: Connection, run: str, step: int, attempt_id: str | None) -> Place:
    """Raises ServiceError where no such attempt was opened."""
    found = RunRepository(connection).get(run)
    if found is None:
        if attempt_id is not None:
            raise unknown_attempt(run, attempt_id)
        return Place(None, 1, False, None, ())
    if attempt_id is None:
        attempt = _standing(connection, found, step)
    else:
        attempt = _named(connection, found, attempt_id)
    return Place(
        found,
        attempt,
        attempt_id is not None,
        StepRepository(connection).get(run, step, attempt=attempt),
        ShardRepository(connection).of_step(found.number, step, attempt=attempt),
    )


def unknown_attempt(run: str, attempt_id: str) -> ServiceError:
    return ServiceError(
        problem_kinds.NOT_FOUND,
        f"run {run} has no attempt {attempt_id[:80]!r}",
        remedy=f'open it first: POST /v1/runs/{run}/attempts {{"id": …}}, or push without it',
    )


def _named(connection: Connection, run: Run, attempt_id: str) -> int:
    for one in AttemptRepository(connection).of_run(run.number):
        if one.id == attempt_id:
            return one.attempt
    raise unknown_attempt(run.name, attempt_id)


def _standing(connection: Connection, run: Run, step: int) -> int:
    """The attempt whose step, complete or in part, a push without an attempt meets."""
    there = StepRepository(connection).attempts_with(run.number, step)
    there += ShardRepository(connection).attempts_with(run.number, step)
    if not there:
        return run.attempt
    latest = max(there)
    every = AttemptRepository(connection).of_run(run.number)
    gone = any(one.attempt > latest and one.goes_back_behind(step) for one in every)
    return run.attempt if gone else latest


def reopened(connection: Connection, run: Run, step: int) -> int:
    """The number of a new attempt, because `step` arrived once more with other content.

    Raises ServiceError where that is rather a second process.
    """
    repository = AttemptRepository(connection)
    if _two_at_once(repository, run, step):
        raise ServiceError(
            problem_kinds.STEP_CONFLICT,
            f"step {step} of run {run.name} arrives with two contents, as the steps before it did: "
            "more than one process pushes whole steps of this run",
            remedy="push the share of each process with its shard number, or give each process a "
            "run of its own; one that was started again opens an attempt",
        )
    return RunRepository(connection).open_attempt(
        run, resumed_from=step - 1 if step > 0 else None, opened_by="step"
    )


def _two_at_once(repository: AttemptRepository, run: Run, step: int) -> bool:
    every = repository.of_run(run.number)
    newest = every[-1]
    refused = newest.last_refusal
    if _opened_by_step(newest) and refused is not None:
        follows = refused["problem"] == problem_kinds.STEP_CONFLICT.slug and refused["step"] < step
        if follows and not repository.has_steps_within(
            run.number, newest.attempt, refused["step"], step
        ):
            return True
    steps = repository.steps_of(run.number)
    begun = [step - 1]
    for one in reversed(every):
        short = steps.get(one.attempt, NO_STEPS).steps <= SHORT_ATTEMPT_STEPS
        resumed_from = FROM_SCRATCH if one.resumed_from is None else one.resumed_from
        if not (_opened_by_step(one) and short and resumed_from <= begun[-1]):
            break
        begun.append(resumed_from)
    return len(set(begun)) > STEPS_IN_A_ROW


def _opened_by_step(attempt: Attempt) -> bool:
    return attempt.attempt > 1 and attempt.opened_by == "step"
