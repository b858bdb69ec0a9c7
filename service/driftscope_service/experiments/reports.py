"""/v1/reports: a report from the store, as JSON and as its self-contained page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.experiments.route import paragraph
from driftscope_service.experiments.store import ReportRepository, StoredReport
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError, not_found
from driftscope_service.http.problems import problems


def stored_report(
    service: ExperimentsService, report_id: str
) -> tuple[StoredReport, dict[str, Any]]:
    """Raises the errors of /v1/reports/{id}."""
    stored = _require(report_id, service)
    report = service.report_files.content(stored)
    if report is None:
        raise ServiceError(
            problem_kinds.REPORT_GONE,
            f"{stored.file} is not in the data folder",
            remedy="run the probe again, or bring the folder back from a copy.",
        )
    return stored, report


def report_routes(kinds: Iterable[Kind]) -> APIRouter:
    router = APIRouter(tags=["reports"])
    gone = problems(problem_kinds.NOT_FOUND, problem_kinds.REPORT_GONE)
    held = "; ".join(f"{kind.name}: {kind.report_holds}" for kind in kinds)
    router.add_api_route(
        "/v1/reports/{report_id}",
        get_report,
        response_class=FileResponse,
        responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **gone},
        description=paragraph(
            f"The whole report of a probe, by its `kind`. {held}. All: environment."
        ),
    )
    router.add_api_route(
        "/reports/{report_id}", get_report_page, response_class=HTMLResponse, responses=gone
    )
    return router


def get_report(report_id: str, service: CurrentService) -> FileResponse:
    path = _file_of(_require(report_id, service), service)
    return FileResponse(path, media_type="application/json", headers=_links(report_id))


def get_report_page(report_id: str, service: CurrentService) -> HTMLResponse:
    """The report as one self-contained page."""
    stored = _require(report_id, service)
    report = json.loads(_file_of(stored, service).read_bytes())
    kind = service.kinds[stored.kind]
    headers = {"Content-Security-Policy": kind.policy, **_links(report_id)}
    return HTMLResponse(kind.render(kind.read(report)), headers=headers)


def _require(report_id: str, service: ExperimentsService) -> StoredReport:
    with service.database.read() as connection:
        report = ReportRepository(connection).get(report_id)
    if report is None:
        raise not_found("report", report_id)
    return report


def _file_of(report: StoredReport, service: ExperimentsService) -> Path:
    path = service.report_files.path(report.file)
    if not path.is_file():
        raise ServiceError(problem_kinds.REPORT_GONE, f"{report.file} is not in the data folder")
    return path


def _links(report_id: str) -> dict[str, str]:
    return {
        "Link": f'</v1/reports/{report_id}>; rel="alternate"; type="application/json", '
        f'</reports/{report_id}>; rel="alternate"; type="text/html"'
    }
