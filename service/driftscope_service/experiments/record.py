"""Stores a finished report: file, row, summary, and the verdicts that it replaces."""

from __future__ import annotations

from pathlib import Path

from driftscope_service.experiments.kind import Kind, Report
from driftscope_service.experiments.store import (
    Origin,
    ReportFile,
    ReportFiles,
    ReportRepository,
)
from driftscope_service.jobs.run_job import JobOf
from driftscope_service.store.database import Database


def store_report(
    report: Report,
    *,
    kind: Kind,
    model: str | None,
    workdir: Path,
    job_of: JobOf,
    database: Database,
    files: ReportFiles,
    origin: Origin | None = None,
) -> ReportFile:
    """All or nothing: a report that cannot be recorded leaves no file."""
    file = files.write(report, workdir)
    try:
        with database.write() as connection:
            summary = kind.summarise(kind.read(report))
            ReportRepository(connection).add(
                file,
                job_id=job_of(connection),
                kind=kind.name,
                model=model,
                summary=summary,
                origin=origin,
            )
            kind.put_verdicts(summary, model, file.report_id, connection)
    except Exception:
        files.discard(file.report_id)
        raise
    return file
