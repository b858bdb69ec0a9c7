"""A number of a run over its steps, thinned to what a plot can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from driftscope_probes.plural import counted
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import check_metric, metric_thresholds
from driftscope_service.pages import navigation
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, PlotData, plot_response
from driftscope_service.runs.api.schemas import MAX_STEP, RunName
from driftscope_service.runs.current import CurrentService, known_run
from driftscope_service.runs.pages.shown_attempt import ShownAttempt, check_shown
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import MetricPoint, metric_points, superseded_values


@dataclass(frozen=True, slots=True)
class Bucket:
    """Of neighbouring steps; values None where none of them has one."""

    first_step: int
    last_step: int
    low: float | None
    mean: float | None
    high: float | None
    steps: int
    crossed: int  # steps that crossed a limit of this metric


def downsample(points: Sequence[MetricPoint], buckets: int) -> list[Bucket]:
    """Buckets of equally many steps; the last may have fewer."""
    size = max(1, math.ceil(len(points) / buckets))
    return [_bucket(points[start : start + size]) for start in range(0, len(points), size)]


def _bucket(points: Sequence[MetricPoint]) -> Bucket:
    values = [point.value for point in points if point.value is not None]
    return Bucket(
        first_step=points[0].step,
        last_step=points[-1].step,
        low=min(values, default=None),
        # fsum: the mean of equal values is that value.
        mean=math.fsum(values) / len(values) if values else None,
        high=max(values, default=None),
        steps=len(points),
        crossed=sum(point.crossed for point in points),
    )


#: More than the pixels of a wide plot; 10,000 buckets are the whole of a long run.
MAX_BUCKETS: Final = 10_000
#: More lines are a tangle.
OLDER_ATTEMPTS: Final = 5
COLUMNS: Final = ("first_step", "last_step", "low", "mean", "high", "steps", "crossed")
router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)

FirstStep = Annotated[int, Query(ge=0, le=MAX_STEP)]
LastStep = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


@router.get("/{run}/plots/drift.{format_}")
@router.get("/{run}/attempts/{of_attempt}/plots/drift.{format_}")
def get_drift_plot(
    request: Request,
    run: RunName,
    format_: Format,
    service: CurrentService,
    attempt: ShownAttempt,
    metric: Annotated[str, Query(max_length=64)] = metric_words.DEFAULT,
    first: FirstStep = 0,
    last: LastStep = None,
    buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = MAX_BUCKETS,
) -> Response:
    check_metric(metric)
    with service.database.read() as connection:
        found = known_run(connection, run)
        check_shown(found, attempt)
        points = metric_points(
            connection, found.number, metric, first=first, last=last, attempt=attempt
        )
        drift = service.run_drift.of(found, connection, attempt=attempt)
        older: Mapping[int, Sequence[tuple[int, float]]] = {}
        if attempt is None and found.resumed:
            older = superseded_values(
                connection, found.number, metric, OLDER_ATTEMPTS, first=first, last=last
            )
    data = drift_data(found, metric, points, drift, buckets, attempt=attempt, older=older)
    return plot_response(request, data, format_, f"{run}-{metric}")


def drift_data(
    run: Run,
    metric: str,
    points: list[MetricPoint],
    drift: Mapping[str, Any],
    buckets: int,
    *,
    attempt: int | None = None,
    older: Mapping[int, Sequence[tuple[int, float]]] | None = None,
) -> PlotData:
    """`drift`: Drift.to_dict() of what is drawn: the series, or the `attempt`. `older`: what
    earlier attempts had in its place, (step, value) by attempt."""
    told = metric_words.metric(metric)
    found = downsample(points, buckets)
    rows = [
        (one.first_step, one.last_step, one.low, one.mean, one.high, one.steps, one.crossed)
        for one in found
        if one.mean is not None
    ]
    limits = metric_thresholds(metric, run.rollout_dtype, run.trainer_dtype)
    about: dict[str, Any] = {
        "run": run.name,
        "page": navigation.attempt_page(run.name, attempt),
        "metric": metric,
        "label": told.label,
        "unit": told.unit,
        # A logarithmic axis has no place for a distance from 1, nor for a sign.
        "logarithmic": told.scale == "log" and told.ideal == 0,
        "ideal": told.ideal,
        "form": told.form,
        "limits": [
            {"direction": one.direction, "value": one.value, "source": one.source} for one in limits
        ],
        "drift": drift["metrics"].get(metric),  # None where no step has a value
        "events": _events(metric, drift["events"]),
        "older": [
            {
                "attempt": number,
                "page": navigation.attempt_page(run.name, number),
                "points": _thinned(lost, buckets),
            }
            for number, lost in (older or {}).items()
        ],
        "empty": "No step of this range has a value of this number.",
    }
    if len(found) < len(points):
        about["note"] = (
            f"{counted(len(points), 'step')} in {counted(len(found), 'group')}: the line is the "
            "mean of a group, the band reaches from its lowest to its highest step."
        )
    return PlotData(COLUMNS, rows, about)


def _thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """Evenly, the last among them: these lines are background."""
    size = max(1, math.ceil(len(points) / most))
    kept = list(points[::size])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _events(metric: str, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those at which this metric moved, and every resume: where the plot draws a line."""
    return [
        {name: event[name] for name in ("kind", "step", "low", "high")}
        for event in events
        if event["kind"] == "resume"
        or any(one["metric"] == metric for one in (*event["numbers"], *event["folded"]))
    ]
