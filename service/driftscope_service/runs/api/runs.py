"""/v1/runs: training runs, what describes them, and their steps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from driftscope_probes.drift import SERIES
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import InvalidField, not_found, problems
from driftscope_service.runs.api.run_query import (
    AskedFilter,
    AskedOrder,
    RunCursor,
    RunLimit,
    asked_place,
)
from driftscope_service.runs.api.schemas import (
    MAX_STEP,
    AttemptNumber,
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
from driftscope_service.runs.baseline import marks_of
from driftscope_service.runs.course import run_diagnosis
from driftscope_service.runs.current import CurrentService, known_run
from driftscope_service.runs.store.marks import RunMarks
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.search import RunSearch, place_of
from driftscope_service.runs.store.steps import SeriesPoint, StepRepository

#: Five short texts, sixteen labels, sixteen tags, and a note of which each character is an escape.
MAX_RUN_BYTES = 65_536
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
    """Describe a run, mark it, or say that it has ended. Fields that are given replace the old
    ones, all others stay. A trainer need not describe it: the first step makes the run, from its
    metadata. An end, tags, a note and a pin are said of a run that is known: 404 where it is not.
    Tags, note and pin do not count as news of the training: the run keeps its place among the
    latest."""
    given = {} if fields is None else fields.model_dump(exclude_unset=True)
    marks = {name: given.pop(name) for name in MARKS if name in given}
    state = given.pop("state", None)
    finished = None if state is None else state == "finished"
    with service.database.write() as connection:
        runs = RunRepository(connection)
        known, new = runs.get(run), False
        if known is None and (finished or (marks and not given)):
            raise not_found("run", run)  # most likely a mistyped name
        if known is None or given or state is not None or not marks:
            known, new = runs.put(run, given, finished=finished)
        mark(connection, known, marks)
        body = _body(connection, run)
    if new:
        response.status_code = 201
        response.headers["Location"] = run_path(run)
    return body


#: Fields of a PUT that people set, as against what a trainer says of its run.
MARKS = ("tags", "note", "pinned")


def mark(connection: Connection, run: Run, marks: Mapping[str, Any]) -> None:
    """`marks`: some of MARKS."""
    repository = RunMarks(connection)
    if "tags" in marks:
        repository.tag(run.number, marks["tags"])
    if "note" in marks:
        repository.note(run.number, marks["note"])
    if "pinned" in marks:
        if marks["pinned"] and run.model is None:
            raise InvalidField(
                "/pinned",
                f"the run {run.name} names no model, and a baseline is that of a model",
                remedy="give the run its `model` first, or with the same request.",
            )
        repository.pin(run.number, marks["pinned"])


def _body(connection: Connection, name: str) -> RunBody:
    found = known_run(connection, name)
    return RunBody.of(found, marks_of(connection, [found])[found.number])


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_runs(
    service: CurrentService,
    wanted: AskedFilter,
    sort: AskedOrder = "activity",
    limit: RunLimit = 20,
    cursor: RunCursor = None,
) -> RunPage:
    """Runs that all of the given holds for; what is left out, or empty, asks nothing."""
    after = asked_place(cursor, sort)
    with service.database.read() as connection:
        search = RunSearch(connection)
        found = search.page(wanted, sort, limit + 1, after=after)
        matches = search.count(wanted)
        shown = found[:limit]
        marks = marks_of(connection, shown)
    return RunPage(
        runs=[RunBody.of(run, marks[run.number]) for run in shown],
        matches=matches,
        next_cursor=place_of(shown[-1], sort).encode() if len(found) > limit else None,
    )


@router.get("/{run}", responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST))
def get_run(run: RunName, service: CurrentService) -> RunBody:
    """What describes a run, and how far it is."""
    with service.database.read() as connection:
        return _body(connection, run)


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
    attempt: AttemptNumber = None,
) -> Response:
    """The series of a run: per complete step the numbers to draw, and the drift of the
    whole run. With `attempt` the steps are those of one attempt, superseded ones among them."""
    wanted = None if metrics is None else _metrics(metrics)
    with service.database.read() as connection:
        found = known_run(connection, run)
        # One more than asked for tells whether there is a next page.
        _check_attempt(found, attempt)
        points = StepRepository(connection).points(
            found.number, limit + 1, after=after, attempt=attempt
        )
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
def get_step(
    run: RunName, step: StepNumber, service: CurrentService, attempt: AttemptNumber = None
) -> Response:
    """The analysis of a complete step, as it was answered when the step was pushed: that of the
    series, or else of the latest attempt that had the step, or of the one that is asked for."""
    with service.database.read() as connection:
        stored = StepRepository(connection).get(run, step, attempt=attempt)
    if stored is None:
        raise not_found("complete step", step, f"run {run!r}")
    return Response(step_answer(stored), media_type="application/json")


def _check_attempt(run: Run, attempt: int | None) -> None:
    if attempt is not None and attempt > run.attempt:
        raise not_found("attempt", attempt, f"run {run.name!r}, which has {run.attempt}")


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
        "attempt": point.attempt,
        "superseded_by": point.superseded_by,
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
