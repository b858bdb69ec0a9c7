"""/v1/jobs: list, one, cancel, logs, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import ServiceError, not_found
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.http.problems import problems
from driftscope_service.jobs.current import CurrentService, JobsService
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.job_folder import JobFolder
from driftscope_service.jobs.schemas import JobBody, JobPage
from driftscope_service.jobs.store import JobRepository


def find_job(service: JobsService, job_id: str) -> Job | None:
    with service.database.read() as connection:
        return JobRepository(connection).get(job_id)


def _required_job(job_id: str, service: CurrentService) -> Job:
    job = find_job(service, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


RequiredJob = Annotated[Job, Depends(_required_job)]


router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_jobs(
    service: CurrentService,
    limit: Limit = 20,
    cursor: Cursor = None,
    state: JobState | None = None,
) -> JobPage:
    """Jobs, newest first."""
    before = paging.before(cursor)
    with service.database.read() as connection:
        jobs = JobRepository(connection).page(limit + 1, before=before, state=state)
    shown, next_cursor = paging.cut(jobs, limit, lambda job: job.number)
    return JobPage(jobs=[JobBody.of(job) for job in shown], next_cursor=next_cursor)


@router.get("/{job_id}", responses=problems(problem_kinds.NOT_FOUND))
def get_job(job: RequiredJob) -> JobBody:
    """State, progress and outcome of a job."""
    return JobBody.of(job)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    responses=problems(problem_kinds.NOT_FOUND, problem_kinds.JOB_FINISHED),
)
def cancel_job(job_id: str, service: CurrentService) -> JobBody:
    """Cancel a job. A waiting one is cancelled at once; the probe of a running one is stopped
    within seconds, and its state stays `running` until then. Asking again changes nothing. A job
    that succeeded or failed answers 409."""
    with service.database.write() as connection:
        job = JobRepository(connection).request_cancel(job_id)
    if job is None:
        raise not_found("job", job_id)
    if job.state in (JobState.SUCCEEDED, JobState.FAILED):
        raise ServiceError(problem_kinds.JOB_FINISHED, f"the job has {job.state}", state=job.state)
    service.executor.cancel(job_id)
    return JobBody.of(job)


@router.get(
    "/{job_id}/logs",
    response_class=PlainTextResponse,
    responses=problems(problem_kinds.NOT_FOUND),
)
def get_job_logs(job: RequiredJob, service: CurrentService) -> PlainTextResponse:
    """What the probe and its engines wrote, the end of each log; empty before the job starts."""
    return PlainTextResponse(JobFolder(service.settings.data_dir, job.id).logs())


events_router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: Half of what a person notices as a delay, and one short read of the database each.
LOOK_EVERY_S = 0.5
EVENT = "job"


@events_router.get(
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
