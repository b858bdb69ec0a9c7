"""/probes: the last reports of every kind; /probes/{id}: a paired or determinism report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.determinism import page as determinism_page
from driftscope_service.experiments.determinism.html import axes_state
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.experiments.nightly.terminal import OUTCOMES
from driftscope_service.experiments.paired import job as paired_job
from driftscope_service.experiments.paired import page as paired_page
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.registry import KINDS, OWN_PAGE, kind_label, report_page
from driftscope_service.experiments.reports import stored_report
from driftscope_service.experiments.store import (
    ListedReport,
    StoredReport,
    latest_reports,
    report_counts,
)
from driftscope_service.http import paging
from driftscope_service.http.current_service import CurrentService
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.http.paging import Cursor
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, plot_response
from driftscope_service.store.tables import ID_LENGTH

#: Of each kind where all are listed, and of one kind by itself.
FEW: Final = 5
PAGE_SIZE: Final = 30
router = APIRouter(prefix="/probes", include_in_schema=False, route_class=PageRoute)
ReportId = Annotated[str, Path(max_length=ID_LENGTH)]


@dataclass(frozen=True, slots=True)
class Row:
    report: ListedReport
    said: str

    @property
    def page(self) -> str:
        return report_page(self.report.kind, self.report.id)


@router.get("")
def list_reports_page(
    request: Request,
    service: CurrentService,
    kind: Annotated[str | None, Query(max_length=20)] = None,
    cursor: Cursor = None,
) -> Response:
    if kind is not None and kind not in KINDS:
        raise InvalidField(
            "query/kind", f"there is no kind {kind!r}", remedy=f"use one of {', '.join(KINDS)}."
        )
    limit = FEW if kind is None else PAGE_SIZE
    before = None if kind is None else paging.before(cursor, remedy=paging.FIRST_PAGE)
    with service.database.read() as connection:
        counts = report_counts(connection)
        found = {
            one: latest_reports(connection, one, limit + 1, before=before)
            for one in KINDS
            if kind in (None, one)
        }
    cuts = {one: paging.cut(rows, limit, lambda row: row.number) for one, rows in found.items()}
    return page(
        request,
        "experiments/templates/probes",
        title="Probes",
        section="probes",
        groups={one: [Row(row, _said(row)) for row in shown] for one, (shown, _) in cuts.items()},
        kinds=KINDS,
        kind=kind,
        counts=counts,
        cursor=cursor,
        next_cursor=None if kind is None else cuts[kind][1],
    )


@router.get("/{report_id}")
def get_probe_page(
    request: Request,
    report_id: ReportId,
    service: CurrentService,
) -> Response:
    stored, report = stored_report(service, report_id)
    if stored.kind not in OWN_PAGE:
        return RedirectResponse(report_page(stored.kind, report_id), 303)
    kind = paired_page if stored.kind == paired_job.KIND else determinism_page
    return page(
        request,
        f"experiments/{stored.kind}/templates/report",
        title=f"{kind_label(stored.kind)} of {stored.model}",
        section="probes",
        crumbs=[Crumb("Probes", "/probes")],
        stored=stored,
        report=report,
        path=f"/probes/{report_id}",
        **kind.page_data(report, request.query_params),
    )


@router.get("/{report_id}/plots/{plot}.{format_}")
def get_probe_plot(
    request: Request, report_id: ReportId, plot: str, format_: Format, service: CurrentService
) -> Response:
    stored, report = stored_report(service, report_id)
    data = None
    if (stored.kind, plot) == (paired_job.KIND, "grid"):
        data = paired_page.grid_data(paired_grid(report["grid"]))
    elif (stored.kind, plot) == (determinism_job.KIND, "axes"):
        data = determinism_page.axes_data(report["axes"])
    if data is None:
        raise not_found(f"plot of {report_id}", plot)
    return plot_response(request, data, format_, f"{report_id}-{plot}")


def _said(row: ListedReport | StoredReport) -> str:
    """What a report says, from its summary."""
    summary = row.summary
    if row.kind == paired_job.KIND:
        return str(summary["sentence"])
    if row.kind == determinism_job.KIND:
        return axes_state(summary["axes"]).sentence
    if row.kind == nightly_job.KIND:
        return f"{OUTCOMES[summary['exit_code']]}: {len(summary['outcomes'])} items."
    assert row.kind == kernels_job.KIND
    verdicts = [verdict["verdict"] for verdict in summary["verdicts"]]
    planted = summary["planted"]
    return (
        f"{verdicts.count('REFUTED')} of {len(verdicts)} refuted; "
        f"{planted['caught']} of {planted['total']} planted faults caught."
    )
