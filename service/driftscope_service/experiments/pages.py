"""/probes: the last reports of every kind; /probes/{id}: a report within the site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from driftscope_service.experiments.kind import Answer, CurrentService, Kind
from driftscope_service.experiments.route import stored_report
from driftscope_service.experiments.store import ListedReport, latest_reports, report_counts
from driftscope_service.http import paging
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.http.paging import Cursor
from driftscope_service.http.parameters import check_parameters, own_parameters
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, plot_response
from driftscope_service.store.tables import ID_LENGTH

#: Reports shown of each kind where all are listed, and of one kind alone.
FEW: Final = 5
PAGE_SIZE: Final = 30
router = APIRouter(prefix="/probes", include_in_schema=False, route_class=PageRoute)
ReportId = Annotated[str, Path(max_length=ID_LENGTH)]


@dataclass(frozen=True, slots=True)
class Row:
    report: ListedReport
    said: str
    page: str
    answer: Answer | None  # None: stored by a version that summed up less


@router.get("")
def list_reports_page(
    request: Request,
    service: CurrentService,
    kind: Annotated[str | None, Query(max_length=20)] = None,
    cursor: Cursor = None,
    deleted: Annotated[str | None, Query(max_length=ID_LENGTH)] = None,
) -> Response:
    kinds = _listed(service.kinds.values())
    if kind is not None and kind not in kinds:
        raise InvalidField(
            "query/kind", f"there is no kind {kind!r}", remedy=f"use one of {', '.join(kinds)}."
        )
    limit = FEW if kind is None else PAGE_SIZE
    before = None if kind is None else paging.before(cursor, remedy=paging.FIRST_PAGE)
    with service.database.read() as connection:
        counts = report_counts(connection)
        reports = {
            name: latest_reports(connection, name, limit + 1, before=before)
            for name in kinds
            if kind in (None, name)
        }
    cuts = {name: paging.cut(rows, limit, lambda row: row.number) for name, rows in reports.items()}
    return page(
        request,
        "experiments/templates/probes",
        title="Probes",
        section="probes",
        groups={
            name: [_row(kinds[name], report) for report in shown]
            for name, (shown, _) in cuts.items()
        },
        kinds={name: each.label for name, each in kinds.items()},
        kind=kind,
        commands={name: " ".join(each.command.words) for name, each in kinds.items()},
        data_dir=service.settings.data_dir,
        deleted=deleted,
        counts=counts,
        cursor=cursor,
        next_cursor=None if kind is None else cuts[kind][1],
    )


@router.get("/{report_id}", dependencies=[Depends(own_parameters)])
def get_probe_page(request: Request, report_id: ReportId, service: CurrentService) -> Response:
    stored, content = stored_report(service, report_id)
    kind = service.kinds[stored.kind]
    if kind.page is None:
        return RedirectResponse(kind.report_page(report_id), 303)
    check_parameters(request, set(kind.page.parameters))
    report = kind.read(content)
    return page(
        request,
        kind.page.template,
        title=f"{kind.label} of {stored.model}",
        section="probes",
        crumbs=[Crumb("Probes", "/probes")],
        stored=stored,
        report=report,
        path=f"/probes/{report_id}",
        **kind.page.shown(report, request.query_params),
    )


@router.get("/{report_id}/plots/{plot}.{format_}")
def get_probe_plot(
    request: Request, report_id: ReportId, plot: str, format_: Format, service: CurrentService
) -> Response:
    stored, content = stored_report(service, report_id)
    kind = service.kinds[stored.kind]
    if kind.page is None or plot not in kind.page.plots:
        raise not_found("plot", plot, f"report {report_id!r}")
    data = kind.page.plots[plot](kind.read(content))
    return plot_response(request, data, format_, f"{report_id}-{plot}")


def _listed(kinds: Iterable[Kind]) -> dict[str, Kind]:
    """Probes of a model first, then checks of the machine."""
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: not kind.of_a_model)}


def _row(kind: Kind, report: ListedReport) -> Row:
    page = kind.report_page(report.id)
    return Row(report, kind.sentence(report.summary), page, kind.answer(report.summary))
