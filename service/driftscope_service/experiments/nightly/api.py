"""/v1/nightly: the nights that were certified, their items and changes."""

from __future__ import annotations

import json
import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    model_validator,
)
from pydantic_core import core_schema, to_jsonable_python
from starlette.concurrency import run_in_threadpool

from driftscope_probes.device.environment import Change
from driftscope_probes.nightly.report import ItemReport, NightConfig, NightlyReport
from driftscope_probes.verdicts import NOT_RUN
from driftscope_service.experiments.kind import (
    MOST_REASON,
    UNFIT,
    CurrentService,
    ExperimentsService,
    draw_once,
)
from driftscope_service.experiments.nightly.job import NAME
from driftscope_service.experiments.nightly.store import Night, NightlyRepository
from driftscope_service.experiments.record import store_report
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import InvalidField, not_found, problems
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.jobs.store import JobRepository

#: Most items of one night: the shipped file has about eighty.
MAX_ITEMS = 5_000
#: Three per item: expectation, a setting and bits; the environment has fewer names than that.
MAX_CHANGES = 4 * MAX_ITEMS
Text = Annotated[str, Field(max_length=5000)]
_AWARE = core_schema.no_info_after_validator_function(
    to_jsonable_python,
    core_schema.datetime_schema(tz_constraint="aware"),
    serialization=core_schema.to_string_ser_schema(),
)
#: A time with its zone, kept as text.
Moment = Annotated[str, GetPydanticSchema(lambda source, handler: _AWARE)]


class NightlyItem(ItemReport):
    """An item of a night; what else it carries is kept as it is."""

    id: str = Field(min_length=1, max_length=300)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    replay: str | None = Field(max_length=10_000)

    @model_validator(mode="after")
    def _says_why_not(self) -> Self:
        if self.verdict in NOT_RUN.values() and not isinstance(self.detail.get("reason"), str):
            raise ValueError("an item that was not run says why in detail.reason")
        return self


class EnvironmentChangeBody(Change):
    kind: str = Field(max_length=100)
    name: str = Field(max_length=500)


class NightlyConfigBody(NightConfig):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=500)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


#: In the order of the first version of the API.
REQUIRED = (
    *("schema_version", "kind", "exit_code", "started_at", "finished_at", "config", "items"),
    *("environment", "changed_environment", "alarms", "resumed", "notes"),
)


class NightlyResultBody(NightlyReport):
    """The object that `driftscope nightly --json` prints."""

    model_config = ConfigDict(json_schema_extra={"required": list(REQUIRED)})

    started_at: Moment
    finished_at: Moment
    config: NightlyConfigBody
    alarms: tuple[Text, ...] = Field(max_length=MAX_ITEMS)
    items: tuple[NightlyItem, ...] = Field(max_length=MAX_ITEMS)
    changed_environment: tuple[EnvironmentChangeBody, ...] = Field(max_length=MAX_CHANGES)
    resumed: int = Field(ge=0)
    notes: tuple[Text, ...] = Field(max_length=1000)


class NightLinks(BaseModel):
    self: str
    report: str
    report_html: str


class NightBody(BaseModel):
    id: str
    config: NightlyConfigBody
    started_at: datetime
    finished_at: datetime
    exit_code: int = Field(description="0 as expected, 1 something changed, 2 could not run")
    items: list[dict[str, Any]] = Field(
        description="id, verdict, expected, changed, as_expected of every item"
    )
    links: NightLinks

    @staticmethod
    def of(night: Night) -> NightBody:
        return NightBody(
            id=night.report_id,
            config=NightlyConfigBody(name=night.config_name, sha256=night.config_sha256),
            started_at=night.started_at,
            finished_at=night.finished_at,
            exit_code=night.exit_code,
            items=night.outcomes,
            links=NightLinks(
                self=f"/v1/nightly/{night.report_id}",
                report=f"/v1/reports/{night.report_id}",
                report_html=f"/reports/{night.report_id}",
            ),
        )


class NightPage(BaseModel):
    nights: list[NightBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


#: The shipped file's night takes about 300 KiB.
MAX_NIGHT_BYTES = 16 * 1_048_576
NIGHTLY_PATH = "/v1/nightly"
BODY_PATH = re.compile(NIGHTLY_PATH)
router = APIRouter(prefix=NIGHTLY_PATH, tags=["nightly"])
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NightlyResultBody.model_json_schema()}},
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": NightBody, "description": "The night was known already"},
        **problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
    },
)
async def add_night(request: Request, response: Response, service: CurrentService) -> NightBody:
    """Hand in a night that ran elsewhere: the object that `driftscope nightly --json` prints. The
    same night again (configuration and start) changes nothing."""
    body = await request.body()
    night, new = await run_in_threadpool(_add, body, service)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"{NIGHTLY_PATH}/{night.id}"
    return night


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_nights(
    service: CurrentService,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> NightPage:
    """Nights, newest first, with what became of each item."""
    before = paging.before(cursor)
    with service.database.read() as connection:
        found = NightlyRepository(connection).page(limit + 1, before=before)
    shown, next_cursor = paging.cut(found, limit, lambda night: night.number)
    return NightPage(nights=[NightBody.of(night) for night in shown], next_cursor=next_cursor)


@router.get("/{night_id}", responses=problems(problem_kinds.NOT_FOUND))
def get_night(night_id: str, service: CurrentService) -> NightBody:
    """One night; its whole report is at `links.report`."""
    with service.database.read() as connection:
        night = NightlyRepository(connection).get(night_id)
    if night is None:
        raise not_found("night", night_id)
    return NightBody.of(night)


def _add(body: bytes, service: ExperimentsService) -> tuple[NightBody, bool]:
    result = _checked(body)
    with service.database.read() as connection:
        known = NightlyRepository(connection).known(
            result.config.sha256, datetime.fromisoformat(result.started_at)
        )
    if known is not None:
        return NightBody.of(known), False
    try:
        draw_once(result.to_dict(), service.kinds[NAME])
    except UNFIT as error:
        reason = f"the night cannot be shown: {type(error).__name__}: {error}"
        raise InvalidField("", reason[:MOST_REASON], remedy=_REMEDY) from None
    with tempfile.TemporaryDirectory(dir=service.settings.data_dir) as workdir:
        file = store_report(
            result.to_dict(),
            kind=service.kinds[NAME],
            model=None,
            workdir=Path(workdir),
            job_of=lambda connection: (
                JobRepository(connection).add_succeeded(NAME, None, {"handed_in": True}).id
            ),
            database=service.database,
            files=service.report_files,
        )
    with service.database.read() as connection:
        night = NightlyRepository(connection).get(file.report_id)
    assert night is not None
    return NightBody.of(night), True


def _checked(body: bytes) -> NightlyResultBody:
    try:
        # NaN is not JSON, and the report could not be stored with it.
        loaded = json.loads(body, parse_constant=_no_constant)
        return NightlyResultBody.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "/" + "/".join(str(part) for part in first["loc"])
        raise InvalidField(pointer, first["msg"], remedy=_REMEDY) from None
    except (ValueError, RecursionError) as error:
        raise InvalidField("", f"the body is not a JSON object: {error}", remedy=_REMEDY) from None


_REMEDY = "send what `driftscope nightly --json` prints, or its report.json."


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
