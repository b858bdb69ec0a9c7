"""Stores a finished report: file, row, summary, and the verdicts that it replaces."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import OperationalError

from driftscope_service.experiments.kind import Kind, Report
from driftscope_service.experiments.store import (
    Origin,
    ReportFile,
    ReportFiles,
    ReportRepository,
)
from driftscope_service.jobs.run_job import Again, JobOf
from driftscope_service.store.database import CommitUnknown, Database


def store_report(
    report: Report,
    *,
    kind: Kind,
    model: str | None,
    workdir: Path,
    job_of: JobOf,
    again: Again = lambda _: False,
    database: Database,
    files: ReportFiles,
    origin: Origin | None = None,
) -> ReportFile:
    """All or nothing: a report that cannot be recorded leaves no file, unless it may be recorded
    after all: then a sweep removes it if no row names it."""
    file = files.write(report, workdir)

    def add() -> None:
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

    perhaps_added = False  # then a row may name the files
    while True:
        try:
            add()
            return file
        except Exception as error:
            perhaps_added |= isinstance(error, CommitUnknown)
            if isinstance(error, OperationalError) and again(error):
                continue
            if not perhaps_added:
                files.discard(file.report_id)
            raise
