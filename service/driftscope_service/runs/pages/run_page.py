"""/runs/{run}: the state of a run in a sentence, a number over its steps, what moved, its steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from driftscope_kernels.on_policy.weights.recorded import of_metadata
from driftscope_probes.drift import SERIES
from driftscope_service.http.errors import not_found
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.numbers.limit_words import LimitText, beside
from driftscope_service.numbers.metric_words import check_metric, metric_thresholds
from driftscope_service.pages import navigation
from driftscope_service.pages.diagnosis import diagnosis_view
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, evidence_plot, plot_response
from driftscope_service.runs.api.schemas import MAX_STEP, RunName, run_path
from driftscope_service.runs.baseline import marks_of
from driftscope_service.runs.course import with_course
from driftscope_service.runs.current import CurrentService, RunsService, known_run
from driftscope_service.runs.pages.drift_plot import FirstStep, LastStep
from driftscope_service.runs.pages.run_events import event_rows
from driftscope_service.runs.pages.run_state import NO_STEPS, run_state, stored_at
from driftscope_service.runs.pages.shown_attempt import ShownAttempt, attempt_rows, check_shown
from driftscope_service.runs.pages.verdict_strip import verdict_strip
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import SeriesPoint, points_before, verdict_points
from driftscope_service.runs.weights_words import weights_line

STEPS_SHOWN: Final = 30
#: As many as drift is worked out over.
STRIP_STEPS: Final = 10_000
SPARK_STEPS: Final = 60
#: A plot is about a thousand pixels wide.
BUCKETS: Final = 500
router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number: its last value, its limits, its last steps."""

    name: str
    label: str
    text: str
    unit: str
    limits: tuple[LimitText, ...]
    beyond: bool
    state: str
    values: list[float | None]


@router.get("/{run}")
@router.get("/{run}/attempts/{of_attempt}")
def get_run_page(
    request: Request,
    run: RunName,
    service: CurrentService,
    attempt: ShownAttempt,
    metric: Annotated[str, Query(max_length=64)] = metric_words.DEFAULT,
    first: FirstStep = 0,
    last: LastStep = None,
    before: Annotated[int | None, Query(ge=0, le=MAX_STEP)] = None,
) -> Response:
    check_metric(metric)
    with service.database.read() as connection:
        found = known_run(connection, run)
        check_shown(found, attempt)
        of_series = service.run_drift.of(found, connection)
        drift = of_series
        if attempt is not None:
            drift = service.run_drift.of(found, connection, attempt=attempt)
        shown = _shown(service, connection, found, drift, metric, before, attempt)
        attempts = attempt_rows(connection, found, of_series["events"])
        marks = marks_of(connection, [found])[found.number]
    chosen = {"metric": None if metric == metric_words.DEFAULT else metric}
    span = {"first": first or None, "last": last}
    return page(
        request,
        "runs/pages/templates/run",
        title=run if attempt is None else f"{run}, attempt {attempt}",
        section="runs",
        crumbs=[
            Crumb("Runs", "/runs"),
            *([] if attempt is None else [Crumb(run, navigation.run_page(run))]),
        ],
        run=found,
        marks=marks,
        metric=metric_words.metric(metric),
        metrics=[metric_words.metric(name) for name in SERIES],
        words=metric_words,
        first=first,
        last=last,
        before=before,
        path=navigation.attempt_page(run, attempt),
        api=run_path(run),
        attempt=attempt,
        attempts=attempts,
        chosen=chosen,
        span=span,
        buckets=BUCKETS,
        events=event_rows(drift),
        **shown,
    )


def _shown(
    service: RunsService,
    connection: Connection,
    run: Run,
    drift: dict[str, Any],
    metric: str,
    before: int | None,
    attempt: int | None,
) -> dict[str, Any]:
    latest = points_before(connection, run.number, SPARK_STEPS, before=None, attempt=attempt)[::-1]
    causes = service.run_drift.causes.of(run, connection, attempt=attempt)
    strip = verdict_points(connection, run.number, STRIP_STEPS, attempt=attempt)
    state, crossed, diagnosis, weights = NO_STEPS, list[dict[str, Any]](), None, None
    last_step = latest[-1].step if latest else None
    if last_step is not None:
        stored = stored_at(connection, run.name, last_step, attempt=attempt)
        analysis = json.loads(stored.analysis)
        weights = weights_line(of_metadata(stored.metadata), strip)
        crossed = analysis["crossed_limits"]
        diagnosis = read_diagnosis(analysis.get("diagnosis"))
        if diagnosis is not None:
            diagnosis = with_course(diagnosis, causes)
        state = run_state(last_step, crossed, drift)
    # One more than is shown tells whether there are more.
    rows = points_before(connection, run.number, STEPS_SHOWN + 1, before=before, attempt=attempt)
    return {
        "last_step": last_step,
        "state": state,
        "weights": weights,
        "diagnosis": diagnosis_view(diagnosis),
        "of_course": diagnosis is not None and diagnosis.cause in causes,
        "strip": verdict_strip(strip),
        "crossed": crossed,
        "metric_drift": drift["metrics"].get(metric),
        "tiles": [_tile(name, run, latest, drift) for name in metric_words.HEADLINE],
        "rows": rows[:STEPS_SHOWN],
        "earlier": rows[STEPS_SHOWN - 1].step if len(rows) > STEPS_SHOWN else None,
    }


@router.get("/{run}/plots/course.{format_}")
@router.get("/{run}/attempts/{of_attempt}/plots/course.{format_}")
def get_course_plot(
    request: Request,
    run: RunName,
    format_: Format,
    service: CurrentService,
    attempt: ShownAttempt,
) -> Response:
    """Of the cause that the steps of the run show together."""
    with service.database.read() as connection:
        found = known_run(connection, run)
        check_shown(found, attempt)
        causes = service.run_drift.causes.of(found, connection, attempt=attempt)
    if not causes or causes[0].plot is None:
        raise not_found("plot of a cause over the steps of run", run)
    return plot_response(request, evidence_plot(causes[0].plot), format_, f"{run}-course")


def _tile(name: str, run: Run, latest: list[SeriesPoint], drift: dict[str, Any]) -> Tile:
    values = [point.series.get(name) for point in latest]
    last = values[-1] if values else None
    known = drift["metrics"].get(name)
    shown = beside(name, last, metric_thresholds(name, run.rollout_dtype, run.trainer_dtype))
    return Tile(
        name=name,
        label=shown.label,
        text=shown.value,
        unit=shown.unit,
        limits=shown.limits,
        beyond=bool(latest) and name in latest[-1].crossed,
        state="no values" if known is None else known["state"].replace("_", " "),
        values=values,
    )
