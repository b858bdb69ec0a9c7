"""/jobs: every job with its state and its progress, newest first; one state by itself."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from driftscope_service.errors import InvalidField
from driftscope_service.jobs.job import JobState
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.store import page_cursor
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
    cursor: Annotated[str | None, Query(max_length=page_cursor.MAX_CURSOR_LENGTH)] = None,
) -> Response:
    with service.database.read() as connection:
        jobs = JobRepository(connection)
        # One more than is shown tells whether there are more.
        found = jobs.page(PAGE_SIZE + 1, before=_before(cursor), state=state)
        counts = jobs.counts()
    shown, more = found[:PAGE_SIZE], len(found) > PAGE_SIZE
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
        next_cursor=page_cursor.encode(shown[-1].number) if more else None,
        # The page as it is, for its own next look.
        again=address.with_query("/jobs", state=state, cursor=cursor),
        live=any(not job.state.finished for job in shown),
        report_page=report_page,
    )


def _before(cursor: str | None) -> int | None:
    try:
        return None if cursor is None else page_cursor.decode(cursor)
    except ValueError as error:
        raise InvalidField("query/cursor", str(error), remedy="begin at the first page.") from None
