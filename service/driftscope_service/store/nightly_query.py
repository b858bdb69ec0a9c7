"""Nights of one configuration, as the page shows them side by side. In: its name. Out: Nights."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from driftscope_service.store.nightly_repository import Night
from driftscope_service.store.tables import nightly_runs


def config_names(connection: Connection) -> list[str]:
    """That of the last night first."""
    name = nightly_runs.c.config_name
    last = func.max(nightly_runs.c.number)
    rows = connection.execute(select(name).group_by(name).order_by(last.desc()))
    return [row[0] for row in rows]


def nights_of(
    connection: Connection, config_name: str, limit: int, *, before: int | None = None
) -> list[Night]:
    """Newest first; `before` is the number of the last one seen."""
    statement = (
        select(nightly_runs)
        .where(nightly_runs.c.config_name == config_name)
        .order_by(nightly_runs.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(nightly_runs.c.number < before)
    return [Night(**row._mapping) for row in connection.execute(statement)]
