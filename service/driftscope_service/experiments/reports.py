"""/v1/reports: a report from the store, as JSON and as its self-contained page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from driftscope_probes.determinism.report import DeterminismReport
from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.nightly.report import NightlyReport
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.determinism import html as determinism_html
from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.kernels import html as kernels_html
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.nightly import html as nightly_html
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.experiments.paired import html as report_html
from driftscope_service.experiments.paired import job as paired_job
from driftscope_service.experiments.store import ReportRepository, StoredReport
from driftscope_service.http import problem_kinds
from driftscope_service.http.current_service import CurrentService
from driftscope_service.http.errors import ServiceError, not_found
from driftscope_service.http.problems import problems
from driftscope_service.service import Service


def stored_report(service: Service, report_id: str) -> tuple[StoredReport, dict[str, Any]]:
    """Raises the errors of /v1/reports/{id}."""
    with service.database.read() as connection:
        stored = ReportRepository(connection).get(report_id)
    if stored is None:
        raise not_found("report", report_id)
    report = report_content(service, stored)
    if report is None:
        raise ServiceError(
            problem_kinds.REPORT_GONE,
            f"{stored.file} is not in the data folder",
            remedy="run the probe again, or bring the folder back from a copy.",
        )
    return stored, report


def report_content(service: Service, stored: StoredReport) -> dict[str, Any] | None:
    """None where its file is gone."""
    try:
        text = service.report_files.path(stored.file).read_bytes()
    except FileNotFoundError:
        return None
    report: dict[str, Any] = json.loads(text)
    return report


router = APIRouter(tags=["reports"])
#: The page is self-contained: it may run its own script and reach nothing.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: These have no script at all.
PLAIN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGES: Mapping[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[[Any], str], str]] = {
    paired_job.KIND: (PairedReport.read, report_html.render, PAGE_POLICY),
    kernels_job.KIND: (KernelsReport.read, kernels_html.render, PLAIN_POLICY),
    determinism_job.KIND: (DeterminismReport.read, determinism_html.render, PLAIN_POLICY),
    nightly_job.KIND: (NightlyReport.read, nightly_html.render, PLAIN_POLICY),
}
_PROBLEMS = problems(problem_kinds.NOT_FOUND, problem_kinds.REPORT_GONE)


@router.get(
    "/v1/reports/{report_id}",
    response_class=FileResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **_PROBLEMS},
)
def get_report(report_id: str, service: CurrentService) -> FileResponse:
    """The whole report of a probe, by its `kind`. paired: grid of comparisons, profiles, settings;
    kernels: verdicts with counterexamples and proofs, planted faults; determinism: a verdict per
    axis with its onset; nightly: every item with what was expected. All: environment."""
    path = _file_of(_require(report_id, service), service)
    return FileResponse(path, media_type="application/json", headers=_links(report_id))


@router.get("/reports/{report_id}", response_class=HTMLResponse, responses=_PROBLEMS)
def get_report_page(report_id: str, service: CurrentService) -> HTMLResponse:
    """The report as one self-contained page."""
    stored = _require(report_id, service)
    report = json.loads(_file_of(stored, service).read_bytes())
    read, render, policy = _PAGES[stored.kind]
    page = render(read(report))
    headers = {"Content-Security-Policy": policy, **_links(report_id)}
    return HTMLResponse(page, headers=headers)


def _require(report_id: str, service: Service) -> StoredReport:
    with service.database.read() as connection:
        report = ReportRepository(connection).get(report_id)
    if report is None:
        raise not_found("report", report_id)
    return report


def _file_of(report: StoredReport, service: Service) -> Path:
    path = service.report_files.path(report.file)
    if not path.is_file():
        raise ServiceError(problem_kinds.REPORT_GONE, f"{report.file} is not in the data folder")
    return path


def _links(report_id: str) -> dict[str, str]:
    return {
        "Link": f'</v1/reports/{report_id}>; rel="alternate"; type="application/json", '
        f'</reports/{report_id}>; rel="alternate"; type="text/html"'
    }
