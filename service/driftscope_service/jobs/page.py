"""/jobs and /jobs/{id}."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from driftscope_service.auth.access import why_not
from driftscope_service.auth.audit import CurrentWho
from driftscope_service.auth.key import Scope
from driftscope_service.http import paging
from driftscope_service.http.errors import not_found
from driftscope_service.http.paging import Cursor
from driftscope_service.jobs.api import (
    CurrentService,
    JobsService,
    cancel_job,
    delete_job,
    find_job,
    job_logs,
    kept_for,
)
from driftscope_service.jobs.job import Job, JobFolder, JobState
from driftscope_service.jobs.job_words import (
    WORDS,
    attempt_rows,
    duration,
    job_sentence,
    job_words,
)
from driftscope_service.jobs.stages import MOST_LIKE, Past, Stage, estimate, read_stages
from driftscope_service.jobs.store import JobRepository
from driftscope_service.pages import navigation
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.store.tables import ID_LENGTH

PAGE_SIZE: Final = 30
router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)


@router.get("")
def list_jobs_page(
    request: Request,
    service: CurrentService,
    state: JobState | None = None,
    cursor: Cursor = None,
) -> Response:
    before = paging.before(cursor, remedy=paging.FIRST_PAGE)
    with service.database.read() as connection:
        jobs = JobRepository(connection)
        page_of_jobs = jobs.page(PAGE_SIZE + 1, before=before, state=state)
        counts = jobs.counts()
    shown, next_cursor = paging.cut(page_of_jobs, PAGE_SIZE, lambda job: job.number)
    return page(
        request,
        "jobs/templates/jobs",
        title="Jobs",
        section="jobs",
        rows=[job_words(job, service.kinds) for job in shown],
        words=WORDS,
        counts=counts,
        total=sum(counts.values()),
        state=state,
        cursor=cursor,
        next_cursor=next_cursor,
        # The current page, for its next refresh.
        again=navigation.with_query("/jobs", state=state, cursor=cursor),
        live=any(not job.state.finished for job in shown),
        kinds=service.kinds,
    )


#: How much of a log a page shows; the whole is a link away.
LOG_LINES: Final = 200
LOG_CHARACTERS: Final = 32_768
job_router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)
JobId = Annotated[str, Path(max_length=ID_LENGTH)]


@job_router.get("/{job_id}")
def get_job_page(request: Request, job_id: JobId, service: CurrentService) -> Response:
    with service.database.read() as connection:
        jobs = JobRepository(connection)
        job = jobs.get(job_id)
        if job is None:
            raise not_found("job", job_id)
        # Never more than the setting that bounds the queue.
        ahead = jobs.page(
            service.settings.max_queued_jobs, before=job.number, state=JobState.QUEUED
        )
        facts = None if job.report_id is None else jobs.report_facts(job.report_id)
        past = _past(job, jobs, service) if job.state is JobState.RUNNING else []
    stages = read_stages(JobFolder(service.settings.data_dir, job.id).newest.path)
    words = job_words(job, service.kinds)
    log, left_out = _log(job, service)
    return page(
        request,
        "jobs/templates/job",
        title=words.title,
        section="jobs",
        crumbs=[Crumb("Jobs", "/jobs")],
        words=words,
        job=job,
        sentence=job_sentence(words, len(ahead)),
        found=None if facts is None else facts.sentence,
        origin=None if facts is None else facts.origin,
        report=None
        if job.report_id is None
        else service.kinds[job.kind].report_page(job.report_id),
        log=log,
        left_out=left_out,
        attempts=attempt_rows(job),
        stages=stage_rows(job, stages),
        left=time_left(job, stages, past),
        again_from=f"/probes/new/{job.kind}?from={job.id}",
        deletable=kept_for(job) is None,
        live=not job.state.finished,
    )


@job_router.get("/{job_id}/delete")
def confirm_deletion(request: Request, job_id: JobId, service: CurrentService) -> Response:
    job = find_job(service, job_id)
    if job is None:
        raise not_found("job", job_id)
    words = job_words(job, service.kinds)
    return page(
        request,
        "jobs/templates/delete_job",
        title=f"Delete {job_id}",
        section="jobs",
        crumbs=[Crumb("Jobs", "/jobs"), Crumb(job_id, f"/jobs/{job_id}")],
        words=words,
        job=job,
        kept=kept_for(job),
        why_not=why_not(request, Scope.ADMIN),
    )


@job_router.post("/{job_id}/delete")
def delete_from_page(job_id: JobId, service: CurrentService, who: CurrentWho) -> Response:
    delete_job(job_id, service, who)
    return RedirectResponse("/jobs", 303)


@job_router.post("/{job_id}/cancel")
def cancel_from_page(job_id: JobId, service: CurrentService, who: CurrentWho) -> Response:
    cancel_job(job_id, service, who)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@dataclass(frozen=True, slots=True)
class StageRow:
    stage: str
    detail: str
    why: str
    found: str
    began: str  # after the start
    took: str  # so far, for the last one of a job that runs
    running: bool


def stage_rows(job: Job, stages: Sequence[Stage]) -> list[StageRow]:
    """In order; each lasts until the next begins."""
    if job.started_at is None:
        return []
    ends = [stage.at_s for stage in stages[1:]]
    end = ((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds()
    return [
        StageRow(
            stage.stage,
            stage.detail,
            stage.why,
            stage.found,
            duration(stage.at_s),
            duration(max(0.0, until - stage.at_s)),
            job.state is JobState.RUNNING and stage is stages[-1],
        )
        for stage, until in zip(stages, [*ends, end], strict=False)
    ]


def time_left(job: Job, stages: Sequence[Stage], past: Sequence[Past]) -> str | None:
    """In words, with what it rests on; None where the job does not run."""
    if job.state is not JobState.RUNNING or job.started_at is None:
        return None
    passed_s = (datetime.now(UTC) - job.started_at).total_seconds()
    found = estimate(passed_s, job.progress.fraction, stages, past)
    if found is None:
        return "No estimate yet: no job like it has ended here."
    if found.left_s < 1:
        return f"It should end any moment, {found.basis}."
    return f"About {duration(found.left_s)} left, {found.basis}."


def _past(job: Job, jobs: JobRepository, service: JobsService) -> list[Past]:
    asked = jobs.request_of(job.id)
    found = []
    for one in jobs.succeeded_like(job, MOST_LIKE):
        assert one.started_at is not None and one.finished_at is not None
        folder = JobFolder(service.settings.data_dir, one.id).newest.path
        took = (one.finished_at - one.started_at).total_seconds()
        found.append(Past(took, read_stages(folder), jobs.request_of(one.id) == asked))
    return found


def _log(job: Job, service: JobsService) -> tuple[str, bool]:
    """The end of the log, and whether there is more before it."""
    whole = job_logs(job, service).rstrip()
    shown = "\n".join(whole.splitlines()[-LOG_LINES:])[-LOG_CHARACTERS:]
    return shown, len(shown) < len(whole)
