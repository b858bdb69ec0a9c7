"""A report leaves the store: its row, its files and the job that made it.

What pages show of it elsewhere are its verdicts; a report that has some goes only with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from driftscope_service.auth.audit import Action, AuditLog, Who
from driftscope_service.experiments.kind import ExperimentsService, Kind
from driftscope_service.experiments.store import ReportRepository, StoredReport
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError, not_found
from driftscope_service.jobs.job import JobFolder
from driftscope_service.jobs.store import JobRepository


@dataclass(frozen=True, slots=True)
class Held:
    """What else is shown of a report."""

    count: int
    words: str

    @property
    def said(self) -> str:
        return f"{self.count} {self.words}"


def held_by(stored: StoredReport, kind: Kind, connection: Connection) -> Held | None:
    if kind.kept_verdicts is None:
        return None
    table, words = kind.kept_verdicts.table, kind.kept_verdicts.words
    rows = select(func.count()).select_from(table).where(table.c.report_id == stored.id)
    count: int = connection.execute(rows).scalar_one()
    return Held(count, words) if count else None


def delete_report(report_id: str, service: ExperimentsService, who: Who, *, verdicts: bool) -> None:
    """Raises 404, and 409 where verdicts of it are shown and `verdicts` does not let them go."""
    with service.database.write() as connection:
        reports = ReportRepository(connection)
        stored = reports.get(report_id)
        if stored is None:
            raise not_found("report", report_id)
        kind = service.kinds[stored.kind]
        held = held_by(stored, kind, connection)
        if held is not None and not verdicts:
            raise ServiceError(
                problem_kinds.IN_USE,
                f"{held.said} rests on this report",
                remedy="run the same check again, whose verdicts take their place; or delete them "
                "too, with verdicts=true.",
            )
        if held is not None and kind.kept_verdicts is not None:
            table = kind.kept_verdicts.table
            connection.execute(delete(table).where(table.c.report_id == report_id))
        reports.remove(report_id)
        JobRepository(connection).remove(stored.job_id)
        AuditLog(connection).add(
            who,
            Action.REPORT_DELETED,
            f"report {report_id}",
            kind=stored.kind,
            model=stored.model,
            job=stored.job_id,
            verdicts=0 if held is None else held.count,
        )
    service.report_files.discard(report_id)
    JobFolder(service.settings.data_dir, stored.job_id).remove()
