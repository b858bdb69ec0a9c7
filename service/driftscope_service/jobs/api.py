"""/v1/jobs: list, one, cancel, logs, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from driftscope_service.auth.audit import Action, AuditLog, CurrentWho
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.current_service import current_service
from driftscope_service.http.errors import ServiceError, not_found, problems
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.jobs.executor import JobExecutor
from driftscope_service.jobs.job import (
    AttemptOutcome,
    Job,
    JobAttempt,
    JobFolder,
    JobKind,
    JobState,
)
from driftscope_service.jobs.store import JobRepository
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database


class JobsService(Protocol):
    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def executor(self) -> JobExecutor: ...
    @property
    def kinds(self) -> Mapping[str, JobKind]: ...


CurrentService = Annotated[JobsService, Depends(current_service)]


class ProgressBody(BaseModel):
    stage: str
    fraction: float = Field(ge=0, le=1, description="of the whole job")
    detail: str


class JobErrorBody(BaseModel):
    error: str = Field(description="class of the error")
    message: str
    remedy: str = Field(description="what to do about it")


class JobAttemptBody(BaseModel):
    attempt: int = Field(ge=1)
    host: str = Field(description="where the probe ran")
    executor: str
    instance: str = Field(description="of the service, which ran it")
    started_at: datetime
    finished_at: datetime | None
    outcome: AttemptOutcome | None = Field(description="null: under way")
    reason: JobErrorBody | None = Field(description="why it left no report")
    logs: str = Field(description="path of its log")


class JobLinks(BaseModel):
    self: str
    cancel: str
    events: str = Field(description="server-sent events until the job has ended")
    logs: str
    report: str | None = Field(description="JSON, once the job has succeeded")
    report_html: str | None = Field(description="page, once the job has succeeded")


class JobBody(BaseModel):
    id: str
    kind: str  # the OpenAPI document lists those that there are
    state: JobState
    model: str | None = Field(description="null: the kind has none")
    progress: ProgressBody
    error: JobErrorBody | None = Field(description="why it failed")
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None = Field(description="its newest attempt; null while it waits")
    finished_at: datetime | None
    not_before: datetime | None = Field(description="when another attempt may begin, if one waits")
    attempts: list[JobAttemptBody] = Field(description="every time that it was begun, oldest first")
    links: JobLinks

    @staticmethod
    def of(job: Job) -> JobBody:
        path, report = f"/v1/jobs/{job.id}", job.report_id
        return JobBody.model_validate(
            {
                "id": job.id,
                "kind": job.kind,
                "state": job.state,
                "model": job.model,
                "progress": job.progress.to_dict(),
                "error": None if job.error is None else job.error.to_dict(),
                "cancel_requested": job.cancel_requested_at is not None,
                "created_at": job.created_at,
                "started_at": job.started_at,
                "finished_at": job.finished_at,
                "not_before": job.not_before,
                "attempts": [_attempt(one, path) for one in job.attempts],
                "links": {
                    "self": path,
                    "cancel": f"{path}/cancel",
                    "events": f"{path}/events",
                    "logs": f"{path}/logs",
                    "report": None if report is None else f"/v1/reports/{report}",
                    "report_html": None if report is None else f"/reports/{report}",
                },
            }
        )


def _attempt(attempt: JobAttempt, path: str) -> dict[str, object]:
    return {
        "attempt": attempt.attempt,
        "host": attempt.host,
        "executor": attempt.executor,
        "instance": attempt.owner,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "outcome": attempt.outcome,
        "reason": None if attempt.reason is None else attempt.reason.to_dict(),
        "logs": f"{path}/logs?attempt={attempt.attempt}",
    }


class JobPage(BaseModel):
    jobs: list[JobBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


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
def cancel_job(job_id: str, service: CurrentService, who: CurrentWho) -> JobBody:
    """Cancel a job. A waiting one is cancelled at once; the probe of a running one is stopped
    within seconds, and its state stays `running` until then. Asking again changes nothing. A job
    that succeeded or failed answers 409. One that waits for another attempt is not tried again."""
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        before, job = jobs.get(job_id), jobs.request_cancel(job_id)
        if before is not None and not before.state.finished and not before.cancel_requested_at:
            AuditLog(connection).add(who, Action.JOB_CANCELLED, f"job {job_id}", kind=before.kind)
    if job is None:
        raise not_found("job", job_id)
    if job.state in (JobState.SUCCEEDED, JobState.FAILED):
        raise ServiceError(problem_kinds.JOB_FINISHED, f"the job has {job.state}", state=job.state)
    service.executor.cancel(job_id)
    return JobBody.of(job)


@router.delete(
    "/{job_id}",
    status_code=204,
    responses=problems(problem_kinds.NOT_FOUND, problem_kinds.JOB_UNFINISHED, problem_kinds.IN_USE),
)
def delete_job(job_id: str, service: CurrentService, who: CurrentWho) -> None:
    """Delete a job that has ended, with its log. One that left a report goes with the report:
    `DELETE /v1/reports/{report}`."""
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        job = jobs.get(job_id)
        if job is None:
            raise not_found("job", job_id)
        why_kept = kept_for(job)
        if why_kept is not None:
            raise why_kept
        jobs.remove(job_id)
        AuditLog(connection).add(who, Action.JOB_DELETED, f"job {job_id}", kind=job.kind)
    JobFolder(service.settings.data_dir, job_id).remove()


def kept_for(job: Job) -> ServiceError | None:
    """What stands against deleting it."""
    if not job.state.finished:
        return ServiceError(
            problem_kinds.JOB_UNFINISHED,
            f"the job is {job.state}",
            remedy="cancel it first.",
        )
    if job.report_id is not None:
        return ServiceError(
            problem_kinds.IN_USE,
            f"the report {job.report_id} is of this job",
            remedy="delete the report, and the job goes with it.",
        )
    return None


#: Beyond any number of attempts; as large as the column.
MOST_ATTEMPT_NUMBER = 2**31 - 1
Attempt = Annotated[
    int | None,
    Query(ge=1, le=MOST_ATTEMPT_NUMBER, description="which attempt; default: the newest"),
]


@router.get(
    "/{job_id}/logs",
    response_class=PlainTextResponse,
    responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST),
)
def get_job_logs(
    job: RequiredJob, service: CurrentService, attempt: Attempt = None
) -> PlainTextResponse:
    """What the probe and its engines wrote, the end of each log; empty before the job starts. Of an
    attempt that ran on another machine and left no report, the last characters."""
    return PlainTextResponse(job_logs(job, service, attempt))


def job_logs(job: Job, service: JobsService, attempt: int | None = None) -> str:
    """By default of the newest attempt."""
    folder = JobFolder(service.settings.data_dir, job.id)
    logs = (folder.newest if attempt is None else folder.attempt(attempt)).logs()
    if logs:
        return logs
    with service.database.read() as connection:
        return JobRepository(connection).log_tail(job.id, attempt)


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
