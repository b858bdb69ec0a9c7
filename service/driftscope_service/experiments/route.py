"""REST routes that every kind has: start a probe, list and read its reports."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel

from driftscope_probes.plural import counted, noun
from driftscope_service.auth.audit import Action, AuditLog, CurrentWho, Who
from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.experiments.store import ReportRepository, StoredReport
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError, not_found, problems
from driftscope_service.jobs.api import JobBody
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.store import JobRepository

#: A job takes minutes: polling every 2 s is enough.
POLL_S = 2
#: A slot becomes free only when a probe ends.
QUEUE_RETRY_S = 60

_ACCEPTED_HEADERS = {
    "Location": {"description": "path of the job", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "seconds until it is worth asking",
        "schema": {"type": "integer"},
    },
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": _ACCEPTED_HEADERS},
    **problems(
        problem_kinds.INVALID_REQUEST,
        problem_kinds.CONTENT_TOO_LARGE,
        problem_kinds.QUEUE_FULL,
    ),
}


def paragraph(text: str) -> str:
    """Lines as the docstring of a route has them: the OpenAPI document shows both alike."""
    quotes = '"""'
    return textwrap.fill(text, 96, initial_indent=quotes, break_on_hyphens=False)[len(quotes) :]


def probe_routes(kinds: Iterable[Kind]) -> APIRouter:
    router = APIRouter(tags=["probes"])
    for kind in kinds:
        router.add_api_route(
            f"/v1/probes/{kind.name}",
            _endpoint(kind),
            methods=["POST"],
            status_code=202,
            responses=_ACCEPTED,
            name=kind.operation,
            description=paragraph(f"{kind.description} Follow the job at `Location`."),
        )
    return router


def _endpoint(kind: Kind) -> Callable[..., JobBody]:
    def start(response: Response, service: CurrentService, who: CurrentWho) -> JobBody:
        return _start(kind, None, response, service, who)

    def start_with(
        request: Any, response: Response, service: CurrentService, who: CurrentWho
    ) -> JobBody:
        return _start(kind, request, response, service, who)

    if kind.request is None:
        return start
    # FastAPI reads the body's model here.
    start_with.__annotations__["request"] = kind.request
    return start_with


def start_job(kind: Kind, request: BaseModel | None, service: ExperimentsService, who: Who) -> Job:
    """Raises InvalidField where the operator does not allow it, ServiceError with a full queue."""
    fields = {**kind.job(request, service.settings), **kind.brings(request, service)}
    limit = service.settings.max_queued_jobs
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        if jobs.count(JobState.QUEUED) >= limit:
            raise ServiceError(
                problem_kinds.QUEUE_FULL,
                f"{counted(limit, 'job')} {noun(limit, 'is', 'are')} waiting already",
                headers={"Retry-After": str(QUEUE_RETRY_S)},
            )
        model = getattr(request, "model", None)
        job = jobs.add(kind.name, model, fields, created_by=who.key_id)
        AuditLog(connection).add(
            who, Action.JOB_STARTED, f"job {job.id}", kind=job.kind, model=job.model
        )
    service.executor.announce()
    return job


def _start(
    kind: Kind, request: BaseModel | None, response: Response, service: ExperimentsService, who: Who
) -> JobBody:
    job = start_job(kind, request, service, who)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_S)
    return JobBody.of(job)


def stored_report(
    service: ExperimentsService, report_id: str
) -> tuple[StoredReport, dict[str, Any]]:
    """Raises the errors of /v1/reports/{id}."""
    stored = _require(report_id, service)
    report = service.report_files.content(stored)
    if report is None:
        raise ServiceError(
            problem_kinds.REPORT_GONE,
            f"{stored.file} is not in the storage",
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
    try:
        return service.report_files.path(report.file)
    except FileNotFoundError:
        detail = f"{report.file} is not in the storage"
        raise ServiceError(problem_kinds.REPORT_GONE, detail) from None


def _links(report_id: str) -> dict[str, str]:
    return {
        "Link": f'</v1/reports/{report_id}>; rel="alternate"; type="application/json", '
        f'</reports/{report_id}>; rel="alternate"; type="text/html"'
    }
