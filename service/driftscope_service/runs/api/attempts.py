"""/v1/runs/{run}/attempts: a run that was started again, and what became of its earlier steps."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import problems
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.api.schemas import ATTEMPT_PATTERN, MAX_STEP, RunName, run_path
from driftscope_service.runs.current import CurrentService, known_run
from driftscope_service.runs.store.attempts import (
    NO_STEPS,
    Attempt,
    AttemptRepository,
    AttemptSteps,
)
from driftscope_service.runs.store.runs import RunRepository

router = APIRouter(prefix="/v1/runs/{run}/attempts", tags=["runs"])
#: An id, a time and a number.
MAX_ATTEMPT_BYTES = 2048
ATTEMPTS_PATH = re.compile(r"/v1/runs/[^/]*/attempts")


class NewAttempt(BaseModel):
    """A start of training under the name of a run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "id": "slurm-48213.0.1",
                    "started_at": "2026-11-29T18:30:00Z",
                    "resumed_from": 40,
                }
            ]
        },
    )

    id: Annotated[str, StringConstraints(pattern=ATTEMPT_PATTERN)] = Field(
        description="the same for all ranks of this start, another one for every start"
    )
    started_at: AwareDatetime | None = Field(default=None, description="default: now")
    resumed_from: Annotated[int, Field(ge=0, le=MAX_STEP)] | None = Field(
        default=None,
        description="the last step that still holds: the series keeps the steps up to it, those "
        "beyond give way; null: from scratch, all give way",
    )


class RefusalBody(BaseModel):
    step: int
    problem: str = Field(description="its kind, as under /problems")
    reason: str
    at: datetime


class AttemptLinks(BaseModel):
    steps: str


class AttemptBody(BaseModel):
    run: str
    attempt: int = Field(description="1, 2, 3 … in the order in which they were opened")
    id: str | None = Field(description="null: no client named it")
    resumed_from: int | None = Field(description="null: from scratch")
    opened_by: Literal["client", "step"] = Field(
        description="`step`: by the first step of the run, or one that came again with other "
        "content"
    )
    started_at: datetime
    steps: int = Field(description="that are stored of it")
    first_step: int | None
    last_step: int | None
    current_steps: int = Field(description="that the series of the run shows")
    refused_steps: int
    last_refusal: RefusalBody | None
    links: AttemptLinks

    @staticmethod
    def of(run: str, attempt: Attempt, stored: AttemptSteps) -> AttemptBody:
        refusal = attempt.last_refusal
        return AttemptBody(
            run=run,
            attempt=attempt.attempt,
            id=attempt.id,
            resumed_from=attempt.resumed_from,
            opened_by=attempt.opened_by,
            started_at=attempt.started_at,
            steps=stored.steps,
            first_step=stored.first_step,
            last_step=stored.last_step,
            current_steps=stored.current_steps,
            refused_steps=attempt.refused_steps,
            last_refusal=None if refusal is None else RefusalBody.model_validate(refusal),
            links=AttemptLinks(steps=f"{run_path(run)}/steps?attempt={attempt.attempt}"),
        )


class AttemptList(BaseModel):
    run: str
    attempts: list[AttemptBody] = Field(description="oldest first; the last one is running")


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": AttemptBody, "description": "It was opened already, and is as it was"},
        **problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
    },
)
def open_attempt(
    run: RunName, new: NewAttempt, response: Response, service: CurrentService
) -> AttemptBody:
    """Say that training starts, or starts again: steps that are pushed with `?attempt=ID` belong to
    it. Earlier attempts keep what they stored; the series shows their steps up to `resumed_from`. A
    run that has nothing yet is made, and this is its first attempt. All ranks may send the same:
    the first one counts."""
    with service.database.write() as connection:
        runs, attempts = RunRepository(connection), AttemptRepository(connection)
        found = runs.of_step(run, {})
        known = {one.id for one in attempts.of_run(found.number)}
        if new.id in known:
            response.status_code = 200
        else:
            runs.open_attempt(
                found,
                id=new.id,
                resumed_from=new.resumed_from,
                opened_by="client",
                started_at=new.started_at or datetime.now(UTC),
            )
            settle_answer(connection, run)
        (opened,) = (one for one in attempts.of_run(found.number) if one.id == new.id)
        stored = attempts.steps_of(found.number)
    return AttemptBody.of(run, opened, stored.get(opened.attempt, NO_STEPS))


@router.get("", responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST))
def list_attempts(run: RunName, service: CurrentService) -> AttemptList:
    """Every start of the run: from where, what is stored of it, what the series shows of that, and
    what was refused."""
    with service.database.read() as connection:
        found = known_run(connection, run)
        attempts = AttemptRepository(connection)
        every, stored = attempts.of_run(found.number), attempts.steps_of(found.number)
    bodies = [AttemptBody.of(run, one, stored.get(one.attempt, NO_STEPS)) for one in every]
    return AttemptList(run=run, attempts=bodies)
