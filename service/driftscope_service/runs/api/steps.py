"""/v1/runs/{run}/steps: the series of a run, and the analysis of one step."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from driftscope_probes.drift import SERIES
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.http.problems import problems
from driftscope_service.runs.api.schemas import (
    MAX_STEP,
    RunName,
    StepAnalysis,
    StepNumber,
    StepSeries,
    step_answer,
)
from driftscope_service.runs.current import CurrentService
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import SeriesPoint, StepRepository

router = APIRouter(prefix="/v1/runs/{run}/steps", tags=["steps"])
#: All steps of a long run in one answer of a few megabytes.
MAX_POINTS = 10_000
_PROBLEMS = problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST)


@router.get("", response_model=StepSeries, responses=_PROBLEMS)
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
    page = points[:limit]
    body = {
        "run": run,
        "steps": [_point(point, wanted) for point in page],
        "drift": drift,
        "next_after": page[-1].step if len(points) > limit else None,
    }
    # Not through the model: validating 10,000 points takes longer than reading them.
    return Response(json.dumps(body, allow_nan=False), media_type="application/json")


@router.get(
    "/{step}",
    response_model=StepAnalysis,
    responses=_PROBLEMS,
)
def get_step(run: RunName, step: StepNumber, service: CurrentService) -> Response:
    """The analysis of a complete step, as it was answered when the step was pushed."""
    with service.database.read() as connection:
        stored = StepRepository(connection).get(run, step)
    if stored is None:
        raise not_found("complete step", f"{step} of run {run}")
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
        "tokens_kept": point.kept_bytes > 0,
    }
