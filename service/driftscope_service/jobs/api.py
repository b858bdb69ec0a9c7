"""/v1/jobs: what was asked for, how far it is, how it ended; its log; cancelling it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError, not_found
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.job_folder import JobFolder
from driftscope_service.problem_responses import problems
from driftscope_service.routes import paging
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.routes.paging import Cursor, Limit
from driftscope_service.routes.required_job import RequiredJob
from driftscope_service.schemas import JobBody, JobPage
from driftscope_service.store.job_repository import JobRepository

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
        found = JobRepository(connection).page(limit + 1, before=before, state=state)
    shown, next_cursor = paging.cut(found, limit, lambda job: job.number)
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
