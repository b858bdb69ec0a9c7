"""/jobs/{id}: how far a job is or how it ended, the end of its log, its report; cancelling it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from driftscope_service.errors import not_found
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.job_folder import JobFolder
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.routes.jobs import cancel_job
from driftscope_service.service import Service
from driftscope_service.store.job_repository import JobRepository
from driftscope_service.store.report_repository import ReportRepository
from driftscope_service.store.tables import ID_LENGTH
from driftscope_service.web.job_words import job_sentence, job_words
from driftscope_service.web.navigation import Crumb
from driftscope_service.web.page import page
from driftscope_service.web.page_route import PageRoute
from driftscope_service.web.report_words import report_page

#: What one reads of a log on a page; the whole is a link away.
LOG_LINES: Final = 200
LOG_CHARACTERS: Final = 32_768
router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)
JobId = Annotated[str, Path(max_length=ID_LENGTH)]


@router.get("/{job_id}")
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
        report = None if job.report_id is None else ReportRepository(connection).get(job.report_id)
    words = job_words(job)
    log, left_out = _log(job, service)
    return page(
        request,
        "job",
        title=words.title,
        section="jobs",
        crumbs=[Crumb("Jobs", "/jobs")],
        words=words,
        job=job,
        sentence=job_sentence(words, len(ahead)),
        found=None if report is None else report.summary.get("sentence"),
        report=None if job.report_id is None else report_page(job.kind, job.report_id),
        log=log,
        left_out=left_out,
        live=not job.state.finished,
    )


@router.post("/{job_id}/cancel")
def cancel_from_page(job_id: JobId, service: CurrentService) -> Response:
    cancel_job(job_id, service)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def _log(job: Job, service: Service) -> tuple[str, bool]:
    """The end of the log, and whether there is more before it."""
    whole = JobFolder(service.settings.data_dir, job.id).logs().rstrip()
    shown = "\n".join(whole.splitlines()[-LOG_LINES:])[-LOG_CHARACTERS:]
    return shown, len(shown) < len(whole)
