"""/v1/reports: list, hand in one that was made elsewhere, delete."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.audit import CurrentWho
from driftscope_service.experiments.deletion import delete_report
from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.experiments.store import (
    ListedReport,
    Origin,
    ReportRepository,
    StoredReport,
    latest_reports,
)
from driftscope_service.experiments.submitted import ReportRefused, Shelf, submit
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import InvalidField, problems
from driftscope_service.http.paging import Cursor, Limit

#: A paired report of nine cells takes 370 KB; the largest grid that is accepted has a hundred.
MAX_REPORT_BYTES: Final = 64 * 1_048_576
REPORTS_PATH: Final = re.compile(r"/v1/reports")
MOST_HOST, MOST_COMMAND = 255, 1000


class OriginBody(BaseModel):
    """Where a report was made, as its maker says."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(min_length=1, max_length=MOST_HOST)
    command: str = Field(max_length=MOST_COMMAND, description="as it was typed")


class ReportLinks(BaseModel):
    self: str
    page: str
    job: str


class ReportBody(BaseModel):
    id: str
    kind: str
    model: str | None = Field(description="null: the kind has none")
    sentence: str = Field(description="what it says")
    created_at: datetime = Field(description="when it was stored")
    origin: OriginBody | None = Field(description="null: a job of this service made it")
    links: ReportLinks

    @staticmethod
    def of(report: ListedReport | StoredReport, kinds: Mapping[str, Kind]) -> ReportBody:
        kind = kinds[report.kind]
        return ReportBody(
            id=report.id,
            kind=report.kind,
            model=report.model,
            sentence=kind.sentence(report.summary),
            created_at=report.created_at,
            origin=None if report.origin is None else OriginBody(**report.origin),
            links=ReportLinks(
                self=f"/v1/reports/{report.id}",
                page=kind.report_page(report.id),
                job=f"/v1/jobs/{report.job_id}",
            ),
        )


class ReportsPage(BaseModel):
    reports: list[ReportBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


router = APIRouter(prefix="/v1/reports", tags=["reports"])
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["kind"],
                    "properties": {
                        "kind": {"type": "string"},
                        "origin": OriginBody.model_json_schema(),
                    },
                }
            }
        },
    }
}


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_reports(
    service: CurrentService,
    limit: Limit = 20,
    cursor: Cursor = None,
    kind: Annotated[str | None, Query(max_length=20)] = None,
) -> ReportsPage:
    """Reports, newest first, of one kind or of all."""
    if kind is not None and kind not in service.kinds:
        names = ", ".join(service.kinds)
        raise InvalidField("query/kind", f"there is no kind {kind!r}", remedy=f"use one of {names}")
    before = paging.before(cursor)
    with service.database.read() as connection:
        found = latest_reports(connection, kind, limit + 1, before=before)
    shown, next_cursor = paging.cut(found, limit, lambda report: report.number)
    bodies = [ReportBody.of(report, service.kinds) for report in shown]
    return ReportsPage(reports=bodies, next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": ReportBody, "description": "The report was known already"},
        **problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
    },
)
async def add_report(request: Request, response: Response, service: CurrentService) -> ReportBody:
    """Hand in a report that was made elsewhere: the object that a command prints with `--json`, or
    its report.json, perhaps with `origin`. The same content again changes nothing."""
    body = await request.body()
    stored, new = await run_in_threadpool(_add, body, service)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/reports/{stored.id}"
    return ReportBody.of(stored, service.kinds)


@router.delete(
    "/{report_id}",
    status_code=204,
    responses=problems(problem_kinds.NOT_FOUND, problem_kinds.IN_USE),
)
def remove_report(
    report_id: str,
    service: CurrentService,
    who: CurrentWho,
    verdicts: Annotated[
        bool, Query(description="delete the verdicts too that other pages show of it")
    ] = False,
) -> None:
    """Delete a report, its files and the job that made it. One whose verdicts stand on other pages
    (of kernels, of axes, a night) is kept unless `verdicts` is true."""
    delete_report(report_id, service, who, verdicts=verdicts)


_REMEDY = "send what the command prints with --json, or its report.json."


def _add(body: bytes, service: ExperimentsService) -> tuple[StoredReport, bool]:
    report = _loaded(body)
    origin = _origin(report.pop("origin", None))
    shelf = Shelf(service.settings.data_dir, service.database, service.report_files, service.kinds)
    try:
        done = submit(report, shelf, origin=origin)
    except ReportRefused as refused:
        raise InvalidField(refused.pointer, refused.message, remedy=refused.remedy) from None
    with service.database.read() as connection:
        stored = ReportRepository(connection).get(done.report_id)
    assert stored is not None
    return stored, done.new


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        # NaN is not JSON, and the report could not be stored with it.
        loaded = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidField("", f"the body is not JSON: {error}", remedy=_REMEDY) from None
    if not isinstance(loaded, dict):
        raise InvalidField("", "the body is not a JSON object", remedy=_REMEDY)
    return loaded


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _origin(given: Any) -> Origin | None:
    if given is None:
        return None
    try:
        body = OriginBody.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in ("origin", *first["loc"]))
        raise InvalidField(
            pointer, first["msg"], remedy="give host and command, or leave it out."
        ) from None
    return Origin(body.host, body.command)
