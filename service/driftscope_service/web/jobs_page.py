"""/jobs: every job with its state and its progress, newest first; one state by itself."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from driftscope_service.jobs.job import JobState
from driftscope_service.routes import paging
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.routes.paging import Cursor
from driftscope_service.store.job_repository import JobRepository
from driftscope_service.web import address
from driftscope_service.web.job_words import WORDS, job_words
from driftscope_service.web.page import page
from driftscope_service.web.page_route import PageRoute
from driftscope_service.web.report_words import report_page

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
        found = jobs.page(PAGE_SIZE + 1, before=before, state=state)
        counts = jobs.counts()
    shown, next_cursor = paging.cut(found, PAGE_SIZE, lambda job: job.number)
    return page(
        request,
        "jobs",
        title="Jobs",
        section="jobs",
        rows=[job_words(job) for job in shown],
        words=WORDS,
        counts=counts,
        total=sum(counts.values()),
        state=state,
        cursor=cursor,
        next_cursor=next_cursor,
        # The page as it is, for its own next look.
        again=address.with_query("/jobs", state=state, cursor=cursor),
        live=any(not job.state.finished for job in shown),
        report_page=report_page,
    )
