"""Reports: JSON for programs at /v1/reports/{id}, a page for people at /reports/{id}."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError, not_found
from driftscope_service.export.report_html import render
from driftscope_service.problem_responses import problems
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.service import Service
from driftscope_service.store.report_repository import ReportRepository

router = APIRouter(tags=["reports"])
#: The page is self-contained: it may run its own script and reach nothing.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PROBLEMS = problems(problem_kinds.NOT_FOUND, problem_kinds.REPORT_GONE)


@router.get(
    "/v1/reports/{report_id}",
    response_class=FileResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **_PROBLEMS},
)
def get_report(report_id: str, service: CurrentService) -> FileResponse:
    """The whole report of a probe: grid of comparisons, profiles, settings and environment."""
    path = _file_of(report_id, service)
    return FileResponse(path, media_type="application/json", headers=_links(report_id))


@router.get("/reports/{report_id}", response_class=HTMLResponse, responses=_PROBLEMS)
def get_report_page(report_id: str, service: CurrentService) -> HTMLResponse:
    """The report as one self-contained page with plots."""
    report = json.loads(_file_of(report_id, service).read_bytes())
    headers = {"Content-Security-Policy": PAGE_POLICY, **_links(report_id)}
    return HTMLResponse(render(report), headers=headers)


def _file_of(report_id: str, service: Service) -> Path:
    with service.database.read() as connection:
        report = ReportRepository(connection).get(report_id)
    if report is None:
        raise not_found("report", report_id)
    path = service.report_files.path(report.file)
    if not path.is_file():
        raise ServiceError(problem_kinds.REPORT_GONE, f"{report.file} is not in the data folder")
    return path


def _links(report_id: str) -> dict[str, str]:
    return {
        "Link": f'</v1/reports/{report_id}>; rel="alternate"; type="application/json", '
        f'</reports/{report_id}>; rel="alternate"; type="text/html"'
    }
