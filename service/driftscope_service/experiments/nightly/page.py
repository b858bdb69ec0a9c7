"""/nightly: what became of every item over the last nights, what else changed, schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from driftscope_probes.device.environment import Change
from driftscope_probes.nightly.report import NightlyReport
from driftscope_probes.verdicts import OUTCOMES
from driftscope_service.experiments.kind import CurrentService, ExperimentsService
from driftscope_service.experiments.nightly.html import TONES
from driftscope_service.experiments.nightly.matrix import (
    QUIET,
    SYMBOLS,
    looked_at,
    night_matrix,
    night_state,
    outcomes_data,
)
from driftscope_service.experiments.nightly.store import Night, config_names, nights_of
from driftscope_service.experiments.nightly.terminal import shown
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.http import paging
from driftscope_service.http.errors import InvalidField
from driftscope_service.http.paging import Cursor
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, plot_response
from driftscope_service.schedule.store import ScheduleRepository
from driftscope_service.store.tables import MODEL_NAME_LENGTH

#: A week, two, a month: what the page offers.
SPANS: Final = (7, 14, 30)
DEFAULT_SPAN: Final = 14
router = APIRouter(prefix="/nightly", include_in_schema=False, route_class=PageRoute)
Config = Annotated[str | None, Query(max_length=MODEL_NAME_LENGTH)]
Span = Annotated[int, Query(ge=1, le=SPANS[-1])]


@dataclass(frozen=True, slots=True)
class Column:
    """A night, with what of it is only in its report; None where that is gone."""

    night: Night
    report: NightlyReport | None

    @property
    def changes(self) -> Sequence[Change]:
        return () if self.report is None else self.report.changed_environment


@router.get("")
def get_nightly_page(
    request: Request,
    service: CurrentService,
    config: Config = None,
    nights: Span = DEFAULT_SPAN,
    cursor: Cursor = None,
) -> Response:
    with service.database.read() as connection:
        configs = config_names(connection)
        chosen = _chosen(config, configs)
        found = _nights(connection, chosen, nights + 1, cursor)
        listed, next_cursor = paging.cut(found, nights, lambda night: night.number)
        columns = _columns(service, connection, listed)
        schedules = ScheduleRepository(connection).all()
    last = columns[0] if columns else None
    return page(
        request,
        "experiments/nightly/templates/page",
        title="Nights",
        section="nightly",
        columns=columns,
        matrix=night_matrix([column.night for column in columns]),
        state=None if last is None else night_state(last.night),
        last=last,
        looked_at=[] if last is None or last.report is None else looked_at(last.report),
        configs=configs,
        config=chosen,
        nights=nights,
        spans=SPANS,
        chosen={
            "config": None if chosen == next(iter(configs), None) else chosen,
            "nights": None if nights == DEFAULT_SPAN else nights,
        },
        cursor=cursor,
        next_cursor=next_cursor,
        schedules=schedules,
        kinds=service.kinds,
        tones=TONES,
        symbols=SYMBOLS,
        quiet=QUIET,
        outcomes=OUTCOMES,
        shown=shown,
    )


@router.get("/plots/{plot}.{format_}")
def get_nightly_data(
    request: Request,
    plot: Literal["outcomes"],
    format_: Format,
    service: CurrentService,
    config: Config = None,
    nights: Span = DEFAULT_SPAN,
    cursor: Cursor = None,
) -> Response:
    with service.database.read() as connection:
        found = _nights(connection, _chosen(config, config_names(connection)), nights, cursor)
    return plot_response(request, outcomes_data(found), format_, "nightly")


def _chosen(config: str | None, configs: Sequence[str]) -> str | None:
    """The configuration asked for, else that of the last night; None before the first night."""
    if config is None:
        return next(iter(configs), None)
    if config not in configs:
        raise InvalidField(
            "query/config",
            f"no night ran with the configuration {config!r}",
            remedy=f"use one of {', '.join(configs)}." if configs else "leave it out.",
        )
    return config


def _nights(
    connection: Connection, config: str | None, limit: int, cursor: str | None
) -> list[Night]:
    before = paging.before(cursor, remedy=paging.FIRST_PAGE)
    return [] if config is None else nights_of(connection, config, limit, before=before)


def _columns(
    service: ExperimentsService, connection: Connection, nights: Sequence[Night]
) -> list[Column]:
    reports = ReportRepository(connection)
    found = []
    for night in nights:
        stored = reports.get(night.report_id)
        content = None if stored is None else service.report_files.content(stored)
        found.append(Column(night, None if content is None else NightlyReport.read(content)))
    return found
