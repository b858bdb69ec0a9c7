"""Reports as pages list them: those of one kind, newest first. In: a kind. Out: rows, no files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from driftscope_service.store.tables import reports


@dataclass(frozen=True, slots=True)
class ListedReport:
    number: int
    id: str
    job_id: str
    kind: str
    model: str | None
    summary: dict[str, Any]  # of jobs/report_summary.py
    created_at: datetime


def latest_reports(
    connection: Connection, kind: str, limit: int, *, before: int | None = None
) -> list[ListedReport]:
    """`before` is the number of the last one seen."""
    names = ListedReport.__dataclass_fields__
    statement = (
        select(*(reports.c[name] for name in names))
        .where(reports.c.kind == kind)
        .order_by(reports.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(reports.c.number < before)
    return [ListedReport(*row) for row in connection.execute(statement)]


def report_counts(connection: Connection) -> dict[str, int]:
    """By kind; a kind without a report is left out."""
    rows = connection.execute(select(reports.c.kind, func.count()).group_by(reports.c.kind))
    return {kind: count for kind, count in rows}
