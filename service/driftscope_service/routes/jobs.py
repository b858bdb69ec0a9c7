"""/v1/jobs: what was asked for, how far it is, how it ended; its log; cancelling it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from driftscope_service import problem_kinds
from driftscope_service.errors import InvalidField, ServiceError, not_found
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.job_folder import JobFolder
from driftscope_service.problem_responses import problems
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.schemas import JobBody, JobPage
from driftscope_service.service import Service
from driftscope_service.store import page_cursor
from driftscope_service.store.job_repository import JobRepository

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_jobs(
    service: CurrentService,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=page_cursor.MAX_CURSOR_LENGTH, description="next_cursor of a page"),
    ] = None,
    state: JobState | None = None,
) -> JobPage:
    """Jobs, newest first."""
    before = None if cursor is None else _decode(cursor)
    with service.database.read() as connection:
        # One more than asked for tells whether there is a next page.
        found = JobRepository(connection).page(limit + 1, before=before, state=state)
    page = found[:limit]
    more = len(found) > limit
    return JobPage(
        jobs=[JobBody.of(job) for job in page],
        next_cursor=page_cursor.encode(page[-1].number) if more else None,
    )


@router.get("/{job_id}", responses=problems(problem_kinds.NOT_FOUND))
def get_job(job_id: str, service: CurrentService) -> JobBody:
    """State, progress and outcome of a job."""
    return JobBody.of(_require(job_id, service))


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
def get_job_logs(job_id: str, service: CurrentService) -> PlainTextResponse:
    """What the probe and its engines wrote, the end of each log; empty before the job starts."""
    job = _require(job_id, service)
    return PlainTextResponse(JobFolder(service.settings.data_dir, job.id).logs())


def _require(job_id: str, service: Service) -> Job:
    with service.database.read() as connection:
        job = JobRepository(connection).get(job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def _decode(cursor: str) -> int:
    try:
        return page_cursor.decode(cursor)
    except ValueError as error:
        raise InvalidField(
            "query/cursor", str(error), remedy="give next_cursor of a page, or leave it out."
        ) from None
