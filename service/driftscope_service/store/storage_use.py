"""How much disk the service takes, by what it holds, and how much is left. In bytes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from driftscope_service.store.tables import reports, steps


@dataclass(frozen=True, slots=True)
class Disk:
    free: int
    size: int


def stored_bytes(connection: Connection) -> dict[str, int]:
    """By kind, as the database tells it: nothing is listed on the disk."""
    tokens = select(func.sum(steps.c.kept_bytes)).where(steps.c.kept_bytes > 0)
    of_reports = select(func.sum(reports.c.size_bytes))
    return {
        "database": _database_bytes(connection),
        "tokens": int(connection.execute(tokens).scalar() or 0),
        "reports": int(connection.execute(of_reports).scalar() or 0),
    }


def disk_of(folder: Path) -> Disk:
    usage = shutil.disk_usage(folder)
    return Disk(usage.free, usage.total)


def _database_bytes(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
        return int(size.scalar_one())
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
