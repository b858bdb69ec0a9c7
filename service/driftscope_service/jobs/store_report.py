"""A finished report into the store: its file, its row, and the verdicts that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from driftscope_service.jobs import determinism_job, kernels_job, nightly_job
from driftscope_service.jobs.report_summary import summarise
from driftscope_service.store.database import Database
from driftscope_service.store.determinism_repository import DeterminismRepository
from driftscope_service.store.kernel_verdict_repository import KernelVerdictRepository
from driftscope_service.store.nightly_repository import NightlyRepository
from driftscope_service.store.report_files import ReportFile, ReportFiles
from driftscope_service.store.report_repository import ReportRepository

#: Gives the id of the job that the report belongs to, in the same transaction.
JobOf = Callable[[Connection], str]


def store_report(
    report: Mapping[str, Any],
    *,
    kind: str,
    model: str | None,
    workdir: Path,
    job_of: JobOf,
    database: Database,
    files: ReportFiles,
) -> ReportFile:
    """All or nothing: a report that cannot be recorded leaves no file."""
    file = files.write(report, workdir)
    try:
        with database.write() as connection:
            summary = summarise(report)
            ReportRepository(connection).add(
                file, job_id=job_of(connection), kind=kind, model=model, summary=summary
            )
            _put_verdicts(kind, model, summary, file.report_id, connection)
    except Exception:
        files.discard(file)
        raise
    return file


def _put_verdicts(
    kind: str,
    model: str | None,
    summary: Mapping[str, Any],
    report_id: str,
    connection: Connection,
) -> None:
    if kind == kernels_job.KIND:
        KernelVerdictRepository(connection).put(summary["verdicts"], report_id)
    elif kind == determinism_job.KIND:
        assert model is not None
        DeterminismRepository(connection).put(model, summary["axes"], report_id)
    elif kind == nightly_job.KIND:
        NightlyRepository(connection).add(summary, report_id)
