"""/v1/jobs/{job}/events: a job as it goes on, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from driftscope_service import problem_kinds
from driftscope_service.jobs.job import Job
from driftscope_service.problem_responses import problems
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.routes.required_job import RequiredJob, find_job
from driftscope_service.schemas import JobBody

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: Half of what a person notices as a delay, and one short read of the database each.
LOOK_EVERY_S = 0.5
EVENT = "job"


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses=problems(problem_kinds.NOT_FOUND),
)
async def get_job_events(
    job: RequiredJob, service: CurrentService
) -> AsyncIterator[ServerSentEvent]:
    """The job now and whenever it has changed, each as the body of `GET /v1/jobs/{job}`, until it
    has ended. Events are named `job`; whoever connects again begins with the present state."""
    shown: JobBody | None = None
    now: Job | None = job
    while now is not None:
        body = JobBody.of(now)
        if body != shown:
            yield ServerSentEvent(data=body, event=EVENT)
            shown = body
        if now.state.finished:
            return
        await asyncio.sleep(LOOK_EVERY_S)
        now = await run_in_threadpool(find_job, service, job.id)
