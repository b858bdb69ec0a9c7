"""/v1/runs: training runs and what describes them."""

from __future__ import annotations

import re

from fastapi import APIRouter, Response

from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import not_found
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.http.problems import problems
from driftscope_service.runs.api.schemas import RunBody, RunFields, RunName, RunPage, run_path
from driftscope_service.runs.current import CurrentService
from driftscope_service.runs.store.runs import RunRepository

#: Five short texts and sixteen labels.
MAX_RUN_BYTES = 16_384
RUN_PATH = re.compile(r"/v1/runs/[^/]*")
router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.put(
    "/{run}",
    responses={
        201: {
            "model": RunBody,
            "description": "The run is new",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **problems(
            problem_kinds.INVALID_REQUEST, problem_kinds.NOT_FOUND, problem_kinds.CONTENT_TOO_LARGE
        ),
    },
)
def put_run(
    run: RunName, response: Response, service: CurrentService, fields: RunFields | None = None
) -> RunBody:
    """Describe a run, or say that it has ended. Fields that are given replace the old ones, all
    others stay. A trainer need not describe it: the first step makes the run, from its metadata.
    A run that is not known has not ended: 404."""
    given = {} if fields is None else fields.model_dump(exclude_unset=True)
    state = given.pop("state", None)
    finished = None if state is None else state == "finished"
    with service.database.write() as connection:
        runs = RunRepository(connection)
        if finished and runs.get(run) is None:
            raise not_found("run", run)  # most likely a mistyped name
        stored, new = runs.put(run, given, finished=finished)
    if new:
        response.status_code = 201
        response.headers["Location"] = run_path(run)
    return RunBody.of(stored)


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_runs(
    service: CurrentService,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> RunPage:
    """Runs, latest activity first."""
    before = paging.before(cursor)
    with service.database.read() as connection:
        found = RunRepository(connection).page(limit + 1, before=before)
    shown, next_cursor = paging.cut(found, limit, lambda run: run.activity)
    return RunPage(runs=[RunBody.of(run) for run in shown], next_cursor=next_cursor)


@router.get("/{run}", responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST))
def get_run(run: RunName, service: CurrentService) -> RunBody:
    """What describes a run, and how far it is."""
    with service.database.read() as connection:
        found = RunRepository(connection).get(run)
    if found is None:
        raise not_found("run", run)
    return RunBody.of(found)
