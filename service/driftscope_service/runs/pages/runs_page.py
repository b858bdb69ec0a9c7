"""/runs: every run that the address asks for, with what its last step says and a line of its last
steps; the state of one with drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection

from driftscope_probes.drift import SERIES
from driftscope_service.http import paging
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.diagnosis_words import verdict_words
from driftscope_service.numbers.metric_words import check_metric
from driftscope_service.pages.diagnosis import TONES
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.words import RunState, Tone
from driftscope_service.runs.api.run_query import (
    AskedFilter,
    AskedOrder,
    RunCursor,
    RunLimit,
    asked_place,
)
from driftscope_service.runs.api.schemas import RunName
from driftscope_service.runs.baseline import Marks, marks_of
from driftscope_service.runs.current import CurrentService, known_run
from driftscope_service.runs.pages import run_filters
from driftscope_service.runs.pages.run_filters import PAGE_SIZE, Listing
from driftscope_service.runs.pages.run_state import NO_STEPS, run_verdict
from driftscope_service.runs.store.progress import Progress, run_progress
from driftscope_service.runs.store.recent import recent_values
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.search import RunFilter, RunSearch, place_of

SPARK_STEPS: Final = 60
#: Of all rows together: so many values are read within a quarter of a second.
SPARK_VALUES: Final = 10_000
_PROGRESS_TONES: Final[Mapping[Progress, Tone]] = {
    "running": "none",
    "resumed": "none",
    "finished": "none",
    "stale": "watch",
}
router = APIRouter(prefix=run_filters.PATH, include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Row:
    run: Run
    marks: Marks
    progress: Progress
    state: RunState  # of the limits: each row asks for its drift by itself, once it is in sight
    values: list[float | None]

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None

    @property
    def verdict(self) -> str | None:
        """In words; None: no step, or stored by a version without a diagnosis."""
        return None if self.run.verdict is None else verdict_words(self.run.verdict)

    @property
    def tone(self) -> Tone:
        return "none" if self.run.verdict is None else TONES[self.run.verdict]

    @property
    def progress_tone(self) -> Tone:
        return _PROGRESS_TONES[self.progress]


@router.get("")
def list_runs_page(
    request: Request,
    service: CurrentService,
    wanted: AskedFilter,
    sort: AskedOrder = "activity",
    limit: RunLimit = PAGE_SIZE,
    metric: Annotated[str, Query(max_length=64)] = metric_words.DEFAULT,
    cursor: RunCursor = None,
) -> Response:
    check_metric(metric)
    after = asked_place(cursor, sort, remedy=paging.FIRST_PAGE)
    listing = Listing(wanted, sort, limit, metric)
    by_script = "hx-request" in request.headers
    if not by_script and "" in request.query_params.values():
        # A form without a script sends its empty fields too.
        return RedirectResponse(listing.address, 303)
    with service.database.read() as connection:
        search = RunSearch(connection)
        found = search.page(wanted, sort, limit + 1, after=after)
        shown = found[:limit]
        spark_steps = min(SPARK_STEPS, max(2, SPARK_VALUES // max(1, len(shown))))
        shown_page = page(
            request,
            "runs/pages/templates/runs",
            title="Runs",
            section="runs",
            rows=_rows(connection, shown, metric, spark_steps),
            matches=search.count(wanted),
            total=search.count(RunFilter()),
            choices=search.choices(),
            listing=listing,
            filters=run_filters,
            metric=metric_words.metric(metric),
            metrics=[metric_words.metric(name) for name in SERIES],
            words=metric_words,
            cursor=cursor,
            next_cursor=place_of(shown[-1], sort).encode() if len(found) > limit else None,
            spark_steps=spark_steps,
        )
    if by_script:
        shown_page.headers["HX-Push-Url"] = listing.address
    return shown_page


@router.get("/{run}/state")
def get_run_state(request: Request, run: RunName, service: CurrentService) -> Response:
    """The state with drift, for one row."""
    with service.database.read() as connection:
        found = known_run(connection, run)
        state = run_verdict(service, connection, found, drift=True)
    return page(request, "runs/pages/templates/run_state", title=run, section="runs", state=state)


def _rows(connection: Connection, runs: Sequence[Run], metric: str, spark_steps: int) -> list[Row]:
    """As many queries for five hundred runs as for one."""
    search = RunSearch(connection)
    marks = marks_of(connection, runs)
    values = recent_values(connection, [run.number for run in runs], metric, spark_steps)
    return [
        Row(
            run,
            marks[run.number],
            run_progress(run, search.now),
            _state(run),
            values.get(run.number, []),
        )
        for run in runs
    ]


def _state(run: Run) -> RunState:
    if run.last_step is None:
        return NO_STEPS
    if run.crossed:
        count = "a published limit" if run.crossed == 1 else f"{run.crossed} published limits"
        return RunState("bad", "beyond limits", f"Step {run.last_step:,} is beyond {count}.")
    return RunState("good", "within limits", f"Step {run.last_step:,} is within every limit.")
