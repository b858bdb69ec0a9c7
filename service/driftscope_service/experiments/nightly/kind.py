"""The night: what is expected of kernels and engines, checked again, and what has changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.nightly.report import NightlyReport, Outcome
from driftscope_probes.plural import counted
from driftscope_probes.verdicts import OUTCOMES
from driftscope_service.experiments.kind import (
    Answer,
    CommandLine,
    KeptVerdicts,
    Kind,
    Report,
    Summary,
)
from driftscope_service.experiments.nightly import api, page
from driftscope_service.experiments.nightly.html import render
from driftscope_service.experiments.nightly.job import NAME, probe_request
from driftscope_service.experiments.nightly.metrics import METRICS, families
from driftscope_service.experiments.nightly.store import NightlyRepository
from driftscope_service.pages.navigation import Section
from driftscope_service.store.tables import MODEL_NAME_LENGTH, nightly_runs


def summarise(report: NightlyReport) -> dict[str, Any]:
    """How it ended, and the outcome of each item."""
    return {
        "config_name": report.config.name[:MODEL_NAME_LENGTH],
        "config_sha256": report.config.sha256,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "exit_code": report.exit_code,
        "outcomes": [
            {name: getattr(item, name) for name in Outcome.model_fields} for item in report.items
        ],
    }


def sentence(summary: Summary) -> str:
    return f"{OUTCOMES[summary['exit_code']]}: {counted(len(summary['outcomes']), 'item')}."


#: By exit code.
_ANSWERS: Final = (
    Answer("good", "as expected"),
    Answer("bad", "changed"),
    Answer("watch", "could not run"),
)


def answer(summary: Summary) -> Answer:
    return _ANSWERS[summary["exit_code"]]


def put_verdicts(
    summary: Summary, _model: str | None, report_id: str, connection: Connection
) -> None:
    NightlyRepository(connection).add(summary, report_id)


def recorded(connection: Connection, report: Report) -> bool:
    last = NightlyRepository(connection).latest()
    return last is not None and last.started_at.isoformat() >= report["started_at"]


def same_work(report: Report, connection: Connection) -> str | None:
    """A night is named by its configuration and its start."""
    started_at = datetime.fromisoformat(report["started_at"])
    known = NightlyRepository(connection).known(report["config"]["sha256"], started_at)
    return None if known is None else known.report_id


KIND: Final = Kind(
    name=NAME,
    label="Nightly check",
    package=__package__,
    docs="nightly.md",
    operation="start_nightly",
    description="Queue a night now, with the operator's configuration.",
    request=None,
    prepare=probe_request,
    runner="driftscope_probes.nightly.run",
    smaller="name fewer models and batch sizes in the nightly configuration.",
    report_holds="every item with what was expected",
    read=NightlyReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    put_verdicts=put_verdicts,
    kept_verdicts=KeptVerdicts(nightly_runs, "night in the history that /nightly shows"),
    check_submitted=lambda report: api.NightlyResultBody.model_validate(report).to_dict(),
    same_work=same_work,
    command_line=CommandLine(("driftscope", "nightly")),
    metrics=METRICS,
    families=families,
    routers=(api.router,),
    page_routers=(page.router,),
    sections=(Section("nightly", "Nights", "/nightly"),),
    body_limits={api.BODY_PATH: api.MAX_NIGHT_BYTES},
    recordings=("nightly-1", "nightly-2"),
    recorded=recorded,
)
