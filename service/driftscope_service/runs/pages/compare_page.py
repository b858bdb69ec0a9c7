"""/compare?a=RUN&b=RUN: two runs by their last steps; /compare?a=RUN:STEP&b=RUN:STEP: two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch.histogram import Histogram
from driftscope_probes.mismatch.oddities import FaultyKinds
from driftscope_probes.numbers import GROUPS
from driftscope_service.http.errors import InvalidField
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import check_metric
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, plot_response
from driftscope_service.runs.api.schemas import run_path, step_path
from driftscope_service.runs.current import CurrentService, RunsService
from driftscope_service.runs.pages.compared import (
    MAX_SIDE,
    Side,
    UnknownSide,
    compared_state,
    histograms_data,
    overlay_data,
    rows,
    side,
)
from driftscope_service.runs.pages.run_state import analysis_at
from driftscope_service.runs.pages.step_view import (
    NoTokens,
    StepViews,
    token_source,
)
from driftscope_service.runs.step_words import faulty_kinds
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import metric_points, points_before

#: Offered while one types.
RUNS_OFFERED: Final = 100
#: Of each run in the table below the plot.
STEPS_SHOWN: Final = 20
BUCKETS: Final = 400
MAX_BUCKETS: Final = 10_000
#: The numbers of a comparison in reading order.
STEP_METRICS: Final = tuple(row.name for rows in GROUPS.values() for row in rows)
router = APIRouter(prefix="/compare", include_in_schema=False, route_class=PageRoute)
Named = Annotated[str, Query(max_length=MAX_SIDE)]
MetricName = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Pair:
    a: Side
    b: Side

    @property
    def runs(self) -> bool:
        return self.a.whole

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b


@router.get("")
def get_compare_page(
    request: Request,
    service: CurrentService,
    a: Named = "",
    b: Named = "",
    metric: MetricName = metric_words.DEFAULT,
) -> Response:
    check_metric(metric)
    pair, problem = None, None
    with service.database.read() as connection:
        runs = RunRepository(connection).page(RUNS_OFFERED)
        if a or b:
            try:
                pair = _pair(connection, a, b)
            except UnknownSide as error:
                problem = str(error)
        shown = {} if pair is None else _shown(connection, service, request, pair, metric)
    return page(
        request,
        "runs/pages/templates/compare",
        title="Compare" if pair is None else f"{pair.a.label} and {pair.b.label}",
        section="compare",
        status=200 if problem is None else 422,
        names=[run.name for run in runs],
        a=a,
        b=b,
        problem=problem,
        pair=pair,
        metric=metric_words.metric(metric),
        metrics=[metric_words.metric(name) for name in SERIES],
        words=metric_words,
        query={
            "a": a,
            "b": b,
            "metric": None if metric == metric_words.DEFAULT else metric,
        },
        buckets=BUCKETS,
        **shown,
    )


@router.get("/plots/drift.{format_}")
def get_overlay(
    request: Request,
    format_: Format,
    service: CurrentService,
    a: Named,
    b: Named,
    metric: MetricName = metric_words.DEFAULT,
    buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = MAX_BUCKETS,
) -> Response:
    check_metric(metric)
    with service.database.read() as connection:
        pair = _asked(connection, a, b)
        points = [metric_points(connection, one.run.number, metric) for one in pair.sides]
    data = overlay_data(pair.sides, metric, points, buckets)
    return plot_response(request, data, format_, f"{pair.a.run.name}-{pair.b.run.name}-{metric}")


@router.get("/plots/histogram.{format_}")
def get_histograms(
    request: Request, format_: Format, service: CurrentService, a: Named, b: Named
) -> Response:
    with service.database.read() as connection:
        pair = _asked(connection, a, b)
    counts = [_histogram(service, request, one) for one in pair.sides]
    name = "-".join(one.named.replace(":", "-") for one in pair.sides)
    return plot_response(request, histograms_data(pair.sides, counts), format_, f"{name}-histogram")


def _pair(connection: Connection, a: str, b: str) -> Pair:
    """Two runs, or two steps: a run beside a step stands for its last step."""
    if not a or not b:
        raise UnknownSide("there are two sides to a comparison: name both")
    steps = ":" in a or ":" in b
    return Pair(side(connection, a, as_step=steps), side(connection, b, as_step=steps))


def _asked(connection: Connection, a: str, b: str) -> Pair:
    try:
        return _pair(connection, a, b)
    except UnknownSide as error:
        raise InvalidField(
            "query/a", str(error), remedy="name two runs, or two steps as run:step."
        ) from None


def _shown(
    connection: Connection, service: RunsService, request: Request, pair: Pair, metric: str
) -> dict[str, Any]:
    names = SERIES if pair.runs else STEP_METRICS
    shown: dict[str, Any] = {
        "state": compared_state(pair.a, pair.b),
        "rows": rows(pair.a, pair.b, names),
        "links": [
            run_path(one.run.name) if pair.runs else step_path(one.run.name, one.step)
            for one in pair.sides
        ],
    }
    if pair.runs:
        return {**shown, "points": _points(connection, pair, metric)}
    return {**shown, "histograms": [_histogram(service, request, one) for one in pair.sides]}


def _points(
    connection: Connection, pair: Pair, metric: str
) -> list[tuple[int, list[float | None]]]:
    """The latest steps of both, descending: the value of each run, None where it has none."""
    found = [
        {
            point.step: point.series.get(metric)
            for point in points_before(connection, one.run.number, STEPS_SHOWN, before=None)
        }
        for one in pair.sides
    ]
    steps = sorted({step for of_run in found for step in of_run}, reverse=True)
    return [(step, [of_run.get(step) for of_run in found]) for step in steps]


def _histogram(service: RunsService, request: Request, one: Side) -> Histogram | str:
    """Why not, as a sentence, where its tokens cannot be read."""
    views: StepViews = request.app.state.step_views
    try:
        source = token_source(service, one.run.name, one.step)
        return views.of(source, _kinds(service, one)).histogram
    except NoTokens as error:
        return str(error)


def _kinds(service: RunsService, one: Side) -> FaultyKinds:
    with service.database.read() as connection:
        return faulty_kinds(analysis_at(connection, one.run.name, one.step))
