"""/probes/{id}/delete: what goes with a report, and the button that deletes it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.access import why_not
from driftscope_service.auth.audit import CurrentWho
from driftscope_service.auth.key import Scope
from driftscope_service.experiments.deletion import delete_report, held_by
from driftscope_service.experiments.kind import CurrentService
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.http.errors import not_found
from driftscope_service.pages.navigation import Crumb, with_query
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.store.tables import ID_LENGTH

router = APIRouter(prefix="/probes", include_in_schema=False, route_class=PageRoute)
ReportId = Annotated[str, Path(max_length=ID_LENGTH)]


@router.get("/{report_id}/delete")
def confirm_deletion(request: Request, report_id: ReportId, service: CurrentService) -> Response:
    with service.database.read() as connection:
        stored = ReportRepository(connection).get(report_id)
        if stored is None:
            raise not_found("report", report_id)
        kind = service.kinds[stored.kind]
        held = held_by(stored, kind, connection)
    return page(
        request,
        "experiments/templates/delete_report",
        title=f"Delete {report_id}",
        section="probes",
        crumbs=[Crumb("Probes", "/probes"), Crumb(report_id, kind.report_page(report_id))],
        stored=stored,
        kind=kind,
        said=kind.sentence(stored.summary),
        held=held,
        why_not=why_not(request, Scope.ADMIN),
    )


@router.post("/{report_id}/delete")
async def delete_from_page(
    request: Request, report_id: ReportId, service: CurrentService, who: CurrentWho
) -> Response:
    typed = parse_qs((await request.body()).decode("utf-8", "replace"))
    with_verdicts = "verdicts" in typed
    await run_in_threadpool(delete_report, report_id, service, who, verdicts=with_verdicts)
    return RedirectResponse(with_query("/probes", deleted=report_id), 303)
