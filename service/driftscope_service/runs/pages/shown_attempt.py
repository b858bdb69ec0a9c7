"""Pages of a run and its steps as one attempt left them: the address, and every attempt in a table.

/runs/{run}/attempts/{attempt}/… are the pages of /runs/{run}/…, which take ?attempt= as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Query, Request
from sqlalchemy import Connection

from driftscope_probes.plural import counted
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.pages import navigation
from driftscope_service.runs.api.schemas import MAX_ATTEMPT
from driftscope_service.runs.pages.run_events import event_sentence
from driftscope_service.runs.store.attempts import (
    NO_STEPS,
    Attempt,
    AttemptRepository,
    AttemptSteps,
    Refusal,
)
from driftscope_service.runs.store.runs import Run


def _asked(
    request: Request,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_ATTEMPT)] = None,
) -> int | None:
    given = request.path_params.get("of_attempt")
    if given is None:
        return attempt
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= MAX_ATTEMPT):
        raise InvalidField(
            "path/attempt",
            f"{given[:20]!r} is no number of an attempt",
            remedy="they are numbered 1, 2, 3 …",
        )
    return int(given)


#: The attempt whose steps a page shows; None: the series of the run.
ShownAttempt: TypeAlias = Annotated[int | None, Depends(_asked)]


def check_shown(run: Run, attempt: int | None) -> None:
    if attempt is not None and attempt > run.attempt:
        raise not_found("attempt", attempt, f"run {run.name!r}, which has {run.attempt}")


@dataclass(frozen=True, slots=True)
class AttemptRow:
    number: int
    id: str | None
    href: str
    newest: bool
    started_at: datetime
    began: str  # from where, in words
    steps: str
    after: str  # what moved where it begins in the series
    refused: int
    last_refused: int | None  # the step
    why: str  # it was refused


def attempt_rows(
    connection: Connection, run: Run, events: Sequence[Mapping[str, Any]]
) -> list[AttemptRow]:
    """Newest first; none where the run was started once and nothing was refused. `events`: of the
    drift of the series."""
    if not run.resumed and not run.refused_steps:
        return []
    repository = AttemptRepository(connection)
    stored = repository.steps_of(run.number)
    resumes = {event["step"]: event for event in events if event["kind"] == "resume"}
    rows = [
        _row(run, one, stored.get(one.attempt, NO_STEPS), resumes)
        for one in repository.of_run(run.number)
    ]
    return rows[::-1]


def _row(
    run: Run, attempt: Attempt, stored: AttemptSteps, resumes: Mapping[int, Mapping[str, Any]]
) -> AttemptRow:
    first = stored.first_current
    event = None if first is None or attempt.attempt == 1 else resumes.get(first)
    return AttemptRow(
        number=attempt.attempt,
        id=attempt.id,
        href=navigation.attempt_page(run.name, attempt.attempt),
        newest=attempt.attempt == run.attempt,
        started_at=attempt.started_at,
        began=_began(attempt),
        steps=_steps(stored),
        after="" if event is None else _after(event),
        refused=attempt.refused_steps,
        last_refused=None if attempt.last_refusal is None else attempt.last_refusal["step"],
        why="" if attempt.last_refusal is None else _why(attempt.last_refusal),
    )


def _began(attempt: Attempt) -> str:
    if attempt.resumed_from is not None:
        return f"after step {attempt.resumed_from:,}"
    return "first start" if attempt.attempt == 1 else "from scratch"


def _steps(stored: AttemptSteps) -> str:
    if stored.first_step is None:
        return "none yet"
    which = f"{stored.first_step:,} to {stored.last_step:,}"
    told = f"{which} ({counted(stored.steps, 'step')}"
    lost = stored.steps - stored.current_steps
    return f"{told})" if not lost else f"{told}, {lost:,} not in the series any more)"


def _why(refusal: Refusal) -> str:
    # Its reason names two hashes, which nobody reads.
    if refusal["problem"] == problem_kinds.STEP_CONFLICT.slug:
        title = problem_kinds.STEP_CONFLICT.title
        return title[:1].lower() + title[1:]
    return refusal["reason"]


def _after(event: Mapping[str, Any]) -> str:
    return event_sentence(event) if event["numbers"] else "no number moved"
