"""/runs: every run with its state in words and a line of its last steps; one state by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from driftscope_probes.drift import SERIES
from driftscope_service.http import paging
from driftscope_service.http.errors import not_found
from driftscope_service.http.paging import Cursor
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import check_metric
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.words import RunState
from driftscope_service.runs.api.schemas import RunName
from driftscope_service.runs.course import named_by
from driftscope_service.runs.current import CurrentService, RunsService
from driftscope_service.runs.pages.run_state import run_verdict
from driftscope_service.runs.pages.verdict_strip import Stretch, verdict_strip
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import VerdictPoint, latest_values, verdict_points

PAGE_SIZE: Final = 20
SPARK_STEPS: Final = 60
#: Drift over so many steps is worked out while the page is made; for the rest each row asks for its
#: own state, and without a script shows the limits alone.
DRIFT_STEPS: Final = 3_000
router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Row:
    run: Run
    state: RunState
    verdict: Stretch | None  # of the last step; None: stored by a version without a diagnosis
    complete: bool  # the state has drift in it
    values: list[float | None]

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None


@router.get("")
def list_runs_page(
    request: Request,
    service: CurrentService,
    metric: Annotated[str, Query(max_length=64)] = metric_words.DEFAULT,
    cursor: Cursor = None,
) -> Response:
    check_metric(metric)
    before = paging.before(cursor, remedy=paging.FIRST_PAGE)
    with service.database.read() as connection:
        found = RunRepository(connection).page(PAGE_SIZE + 1, before=before)
        shown, next_cursor = paging.cut(found, PAGE_SIZE, lambda run: run.activity)
        rows = _rows(service, connection, shown, metric)
    return page(
        request,
        "runs/pages/templates/runs",
        title="Runs",
        section="runs",
        rows=rows,
        metric=metric_words.metric(metric),
        metrics=[metric_words.metric(name) for name in SERIES],
        words=metric_words,
        cursor=cursor,
        next_cursor=next_cursor,
        spark_steps=SPARK_STEPS,
    )


@router.get("/{run}/state")
def get_run_state(request: Request, run: RunName, service: CurrentService) -> Response:
    """The state with drift, for one row."""
    with service.database.read() as connection:
        found = RunRepository(connection).get(run)
        if found is None:
            raise not_found("run", run)
        state = run_verdict(service, connection, found, drift=True)
    return page(request, "runs/pages/templates/run_state", title=run, section="runs", state=state)


def _rows(
    service: RunsService, connection: Connection, runs: Sequence[Run], metric: str
) -> list[Row]:
    rows, budget = [], DRIFT_STEPS
    for run in runs:
        complete = run.complete_steps <= budget
        if complete:
            budget -= run.complete_steps
        state = run_verdict(service, connection, run, drift=complete)
        values = latest_values(connection, run.number, metric, SPARK_STEPS)
        points = verdict_points(connection, run.number, 1)
        if complete:
            causes = service.run_drift.causes.of(run, connection)
            points = [VerdictPoint(one.step, named_by(one.verdict, causes)) for one in points]
        strip = verdict_strip(points)
        verdict = None if strip is None else strip.stretches[0]
        rows.append(Row(run, state, verdict, complete, values))
    return rows
