"""/v1/nightly: nights that ran here or were submitted, newest first."""

from __future__ import annotations

import json
import re
import tempfile
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from driftscope_service.experiments.kind import CurrentService, ExperimentsService
from driftscope_service.experiments.nightly.job import NAME
from driftscope_service.experiments.nightly.schemas import NightBody, NightlyResultBody, NightPage
from driftscope_service.experiments.nightly.store import NightlyRepository
from driftscope_service.experiments.record import store_report
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.http.problems import problems
from driftscope_service.jobs.store import JobRepository

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
