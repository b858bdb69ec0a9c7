"""/kernels: the last verdict on every kernel and every axis of an engine, with what refutes it.

The verdicts are in the database; the details of a single one come from its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from driftscope_probes.kernels.report import KernelsReport, KernelVerdict
from driftscope_probes.verdicts import KERNEL_VERDICTS
from driftscope_service.experiments.determinism.html import TONES as AXIS_TONES
from driftscope_service.experiments.determinism.html import axis_label
from driftscope_service.experiments.determinism.page import axis_matrices, axis_verdicts_data
from driftscope_service.experiments.determinism.store import DeterminismRepository
from driftscope_service.experiments.kernels.html import TONES
from driftscope_service.experiments.kernels.job import NAME as KERNELS
from driftscope_service.experiments.kernels.matrix import (
    kernel_matrix,
    kernels_state,
    subject,
    verdict_word,
    verdicts_data,
)
from driftscope_service.experiments.kernels.store import (
    SUBJECT,
    KernelVerdictRepository,
    StoredVerdict,
)
from driftscope_service.experiments.kernels.terminal import bits
from driftscope_service.experiments.kind import CurrentService, ExperimentsService
from driftscope_service.experiments.store import ReportRepository, StoredReport
from driftscope_service.http.errors import InvalidField
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, plot_response

#: Most of them shown at once; each is in its report as well.
MOST_COUNTEREXAMPLES: Final = 40
#: Longer than any name of a kernel with its dtype and threads.
MAX_SUBJECT: Final = 400
router = APIRouter(prefix="/kernels", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Told:
    """A verdict with its words from the report; None if that is missing."""

    verdict: StoredVerdict
    told: KernelVerdict | None


@router.get("")
def get_kernels_page(
    request: Request,
    service: CurrentService,
    target: Annotated[str | None, Query(max_length=100)] = None,
    at: Annotated[str | None, Query(max_length=MAX_SUBJECT)] = None,
) -> Response:
    with service.database.read() as connection:
        every = KernelVerdictRepository(connection).all()
        axes = DeterminismRepository(connection).all()
        latest = ReportRepository(connection).latest(KERNELS)
        verdicts = [one for one in every if target in (None, one.target)]
        refuted = [one for one in verdicts if one.verdict in ("REFUTED", "INCONCLUSIVE")]
        chosen = None if at is None else _chosen(every, at)
        wanted = [*refuted[:MOST_COUNTEREXAMPLES], *([chosen] if chosen else [])]
        reports = _reports(connection, wanted)
    told = _told(service, wanted, reports)
    planted = None if latest is None else latest.summary["planted"]
    return page(
        request,
        "experiments/templates/verdict_page",
        title="Kernels",
        section="kernels",
        state=kernels_state(verdicts, planted["missed"] if planted else []) if verdicts else None,
        matrix=kernel_matrix(verdicts),
        targets=sorted({one.target for one in every}),
        target=target,
        at=at,
        chosen=told[-1] if chosen else None,
        counterexamples=told[:-1] if chosen else told,
        refuted=len(refuted),
        planted=planted,
        latest=latest,
        axes=axis_matrices(axes),
        tones=TONES,
        axis_tones=AXIS_TONES,
        axis_label=axis_label,
        word=verdict_word,
        legend={
            name: meaning for name, meaning in KERNEL_VERDICTS.items() if _used(name, verdicts)
        },
        subject=subject,
        bits=bits,
    )


@router.get("/plots/{plot}.{format_}")
def get_kernels_data(
    request: Request,
    plot: Literal["verdicts", "axes"],
    format_: Format,
    service: CurrentService,
) -> Response:
    with service.database.read() as connection:
        if plot == "verdicts":
            data = verdicts_data(KernelVerdictRepository(connection).all())
        else:
            data = axis_verdicts_data(DeterminismRepository(connection).all())
    return plot_response(request, data, format_, f"kernels-{plot}")


def _chosen(verdicts: Sequence[StoredVerdict], at: str) -> StoredVerdict:
    verdict = next((each for each in verdicts if subject(each) == at), None)
    if verdict is None:
        raise InvalidField(
            "query/at",
            f"there is no verdict on {at[:80]!r}",
            remedy="choose a cell of the table at /kernels.",
        )
    return verdict


def _reports(connection: Connection, verdicts: Sequence[StoredVerdict]) -> list[StoredReport]:
    ids = dict.fromkeys(verdict.report_id for verdict in verdicts)
    reports = [ReportRepository(connection).get(report_id) for report_id in ids]
    return [report for report in reports if report is not None]


def _told(
    service: ExperimentsService, verdicts: Sequence[StoredVerdict], reports: Sequence[StoredReport]
) -> list[Told]:
    content = {
        (report.id, *(getattr(verdict, name) for name in SUBJECT)): verdict
        for report in reports
        if (content := service.report_files.content(report)) is not None
        for verdict in KernelsReport.read(content).verdicts
    }
    return [
        Told(one, content.get((one.report_id, *(getattr(one, name) for name in SUBJECT))))
        for one in verdicts
    ]


def _used(name: str, verdicts: Sequence[StoredVerdict]) -> bool:
    return any(one.verdict == name for one in verdicts)
