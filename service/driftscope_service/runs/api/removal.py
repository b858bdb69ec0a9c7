"""DELETE /v1/runs/{run} and …/steps/{step}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from driftscope_service.auth.audit import CurrentWho
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import not_found, problems
from driftscope_service.runs.api.schemas import RunName, StepNumber
from driftscope_service.runs.current import CurrentService
from driftscope_service.runs.ingest.removal import delete_run, delete_step
from driftscope_service.runs.store.removal import Removed

router = APIRouter(prefix="/v1/runs/{run}", tags=["runs"])
_PROBLEMS = problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST)
#: Numbers of attempts are counted from 1; the database holds 32 bits.
AttemptNumber = Annotated[
    int | None,
    Query(ge=1, lt=2**31, description="number of the attempt; default: the newest with the step"),
]


class RemovedBody(BaseModel):
    run: str
    steps: int = Field(description="complete ones that are gone")
    files: int = Field(description="that are gone from the disk")
    freed_bytes: int = Field(description="on disk; of shards of open steps as received")

    @staticmethod
    def of(run: str, removed: Removed) -> RemovedBody:
        return RemovedBody(
            run=run,
            steps=removed.steps,
            files=len(removed.files),
            freed_bytes=removed.freed_bytes,
        )


@router.delete("", responses=_PROBLEMS)
async def remove_run(run: RunName, service: CurrentService, who: CurrentWho) -> RemovedBody:
    """Delete a run for good: its steps, attempts, tags, and the tokens on disk. An upload of it
    that is under way ends first; one that comes later makes the run anew. Where it was the baseline
    of its model, the one pinned before it is. Needs the scope admin."""
    removed = await delete_run(service.intake, run, who)
    if removed is None:
        raise not_found("run", run)
    return RemovedBody.of(run, removed)


@router.delete("/steps/{step}", responses=_PROBLEMS, tags=["steps"])
async def remove_step(
    run: RunName,
    step: StepNumber,
    service: CurrentService,
    who: CurrentWho,
    attempt: AttemptNumber = None,
) -> RemovedBody:
    """Delete a step for good, complete or open. Its number may be pushed again. What an older
    attempt has of the step stays with that attempt, outside the series. Needs the scope admin."""
    removed = await delete_step(service.intake, run, step, attempt, who)
    if removed is None:
        raise not_found("step", step, f"run {run!r}")
    return RemovedBody.of(run, removed)
