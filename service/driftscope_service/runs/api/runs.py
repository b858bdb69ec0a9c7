"""/v1/runs: training runs, what describes them, and their steps."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from driftscope_probes.drift import SERIES
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.errors import InvalidField, not_found, problems
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.runs.api.schemas import (
    MAX_STEP,
    RunBody,
    RunFields,
    RunName,
    RunPage,
    StepAnalysis,
    StepNumber,
    StepSeries,
    StepVerdictBody,
    run_path,
    step_answer,
)
from driftscope_service.runs.course import run_diagnosis
from driftscope_service.runs.current import CurrentService
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import SeriesPoint, StepRepository

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


steps_router = APIRouter(prefix="/v1/runs/{run}/steps", tags=["steps"])
#: All steps of a long run in one answer of a few megabytes.
MAX_POINTS = 10_000
_PROBLEMS = problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST)


@steps_router.get("", response_model=StepSeries, responses=_PROBLEMS)
def list_steps(
    run: RunName,
    service: CurrentService,
    after: Annotated[int, Query(ge=-1, le=MAX_STEP, description="steps after this one")] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = 1000,
    metrics: Annotated[
        str | None,
        Query(
            max_length=1000,
            description="comma-separated; default: all of the series",
            examples=["kl_k3,abs_diff_mean"],
        ),
    ] = None,
) -> Response:
    """The series of a run: per complete step the numbers to draw, and the drift of the
    whole run."""
    wanted = None if metrics is None else _metrics(metrics)
    with service.database.read() as connection:
        found = RunRepository(connection).get(run)
        if found is None:
            raise not_found("run", run)
        # One more than asked for tells whether there is a next page.
        points = StepRepository(connection).points(found.number, limit + 1, after=after)
        drift = service.run_drift.of(found, connection)
        diagnosis = run_diagnosis(service.run_drift.causes, found, connection)
    page = points[:limit]
    body = {
        "run": run,
        "diagnosis": None if diagnosis is None else diagnosis.to_dict(),
        "steps": [_point(point, wanted) for point in page],
        "drift": drift,
        "next_after": page[-1].step if len(points) > limit else None,
    }
    # Not through the model: validating 10,000 points takes longer than reading them.
    return Response(json.dumps(body, allow_nan=False), media_type="application/json")


@steps_router.get(
    "/{step}",
    response_model=StepAnalysis,
    responses=_PROBLEMS,
)
def get_step(run: RunName, step: StepNumber, service: CurrentService) -> Response:
    """The analysis of a complete step, as it was answered when the step was pushed."""
    with service.database.read() as connection:
        stored = StepRepository(connection).get(run, step)
    if stored is None:
        raise not_found(f"complete step {step} of run", run)
    return Response(step_answer(stored), media_type="application/json")


def _metrics(given: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    unknown = [name for name in names if name not in SERIES]
    if unknown:
        raise InvalidField(
            "query/metrics",
            f"{unknown[0][:80]!r} is not in the series",
            remedy=f"use {', '.join(SERIES)}.",
        )
    return names


def _point(point: SeriesPoint, wanted: tuple[str, ...] | None) -> dict[str, Any]:
    values = point.series
    return {
        "step": point.step,
        "received_at": point.received_at.isoformat().replace("+00:00", "Z"),
        "tokens": point.tokens,
        "sequences": point.sequences,
        # A step of an older version may lack what the series has now.
        "values": values if wanted is None else {name: values.get(name) for name in wanted},
        "crossed_limits": point.crossed,
        "verdict": _verdict(point),
        "tokens_kept": point.kept_bytes > 0,
    }


def _verdict(point: SeriesPoint) -> dict[str, Any] | None:
    """Without the entropy, which is among the numbers of the step."""
    if point.verdict is None:
        return None
    names = StepVerdictBody.model_fields
    return {name: value for name, value in asdict(point.verdict).items() if name in names}
