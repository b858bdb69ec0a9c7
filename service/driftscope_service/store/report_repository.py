"""The report table: where each report lies, and the summary that /metrics reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from driftscope_service.store.report_files import ReportFile
from driftscope_service.store.tables import reports


@dataclass(frozen=True, slots=True)
class StoredReport:
    id: str
    job_id: str
    kind: str
    model: str | None
    summary: dict[str, Any]  # of jobs/report_summary.py
    file: str  # relative to the data folder
    size_bytes: int
    created_at: datetime


class ReportRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        file: ReportFile,
        *,
        job_id: str,
        kind: str,
        model: str | None,
        summary: Mapping[str, Any],
    ) -> None:
        self._connection.execute(
            insert(reports).values(
                id=file.report_id,
                job_id=job_id,
                kind=kind,
                model=model,
                summary=dict(summary),
                file=file.path,
                size_bytes=file.size_bytes,
                created_at=datetime.now(UTC),
            )
        )

    def get(self, report_id: str) -> StoredReport | None:
        row = self._connection.execute(
            select(reports).where(reports.c.id == report_id)
        ).one_or_none()
        return None if row is None else _report(row)

    def latest(self, kind: str) -> StoredReport | None:
        row = self._connection.execute(
            select(reports).where(reports.c.kind == kind).order_by(reports.c.number.desc()).limit(1)
        ).one_or_none()
        return None if row is None else _report(row)

    def latest_per_model(self, kind: str) -> list[StoredReport]:
        """The last one of every model, by model name."""
        newest = select(func.max(reports.c.number)).where(reports.c.kind == kind).group_by("model")
        rows = self._connection.execute(
            select(reports).where(reports.c.number.in_(newest)).order_by(reports.c.model)
        )
        return [_report(row) for row in rows]


def _report(row: Row[Any]) -> StoredReport:
    fields = dict(row._mapping)
    del fields["number"]
    return StoredReport(**fields)
