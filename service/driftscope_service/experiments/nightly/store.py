"""Nights in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from driftscope_probes.nightly.report import Outcome
from driftscope_service.store.tables import nightly_runs


@dataclass(frozen=True, slots=True)
class Night:
    number: int
    report_id: str
    config_name: str
    config_sha256: str
    started_at: datetime
    finished_at: datetime
    exit_code: int
    outcomes: list[dict[str, Any]]  # an Outcome per item

    @property
    def items(self) -> list[Outcome]:
        return [Outcome.read(outcome) for outcome in self.outcomes]


class NightlyRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, summary: Mapping[str, Any], report_id: str) -> None:
        """`summary`: of the kind."""
        self._connection.execute(
            insert(nightly_runs).values(
                report_id=report_id,
                config_name=summary["config_name"],
                config_sha256=summary["config_sha256"],
                started_at=datetime.fromisoformat(summary["started_at"]),
                finished_at=datetime.fromisoformat(summary["finished_at"]),
                exit_code=summary["exit_code"],
                outcomes=summary["outcomes"],
            )
        )

    def known(self, config_sha256: str, started_at: datetime) -> Night | None:
        """A night is named by its configuration and its start."""
        return self._one(
            select(nightly_runs).where(
                nightly_runs.c.config_sha256 == config_sha256,
                nightly_runs.c.started_at == started_at,
            )
        )

    def get(self, report_id: str) -> Night | None:
        return self._one(select(nightly_runs).where(nightly_runs.c.report_id == report_id))

    def latest(self) -> Night | None:
        return self._one(_newest().limit(1))

    def page(self, limit: int, *, before: int | None = None) -> list[Night]:
        """Newest first; `before` is the number of the last one seen."""
        return _page(self._connection, select(nightly_runs), limit, before)

    def last_success_at(self) -> datetime | None:
        """End of the last night with exit code 0."""
        statement = select(func.max(nightly_runs.c.finished_at)).where(
            nightly_runs.c.exit_code == 0
        )
        ended_at: datetime | None = self._connection.execute(statement).scalar_one()
        return ended_at

    def _one(self, statement: Any) -> Night | None:
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _night(row)


def _newest() -> Any:
    return select(nightly_runs).order_by(
        nightly_runs.c.finished_at.desc(), nightly_runs.c.number.desc()
    )


def _night(row: Row[Any]) -> Night:
    return Night(**row._mapping)


def config_names(connection: Connection) -> list[str]:
    """The last night's first."""
    name = nightly_runs.c.config_name
    last = func.max(nightly_runs.c.number)
    rows = connection.execute(select(name).group_by(name).order_by(last.desc()))
    return [row[0] for row in rows]


def nights_of(
    connection: Connection, config_name: str, limit: int, *, before: int | None = None
) -> list[Night]:
    """Newest first; `before` is the number of the last one seen."""
    statement = select(nightly_runs).where(nightly_runs.c.config_name == config_name)
    return _page(connection, statement, limit, before)


def _page(
    connection: Connection, statement: Select[Any], limit: int, before: int | None
) -> list[Night]:
    if before is not None:
        statement = statement.where(nightly_runs.c.number < before)
    newest_first = statement.order_by(nightly_runs.c.number.desc()).limit(limit)
    return [_night(row) for row in connection.execute(newest_first)]
