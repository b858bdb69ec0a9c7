"""The schedule table. A due moment is taken in one transaction with the job that it starts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from driftscope_service.schedule.schedule import Missed, Schedule
from driftscope_service.store.tables import PROGRESS_TEXT_LENGTH, schedules


class ScheduleRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Schedule | None:
        row = self._connection.execute(
            select(schedules).where(schedules.c.name == name)
        ).one_or_none()
        return None if row is None else _schedule(row)

    def all(self) -> list[Schedule]:
        rows = self._connection.execute(select(schedules).order_by(schedules.c.name))
        return [_schedule(row) for row in rows]

    def put(
        self,
        name: str,
        *,
        cron: str,
        kind: str,
        request: Mapping[str, Any],
        missed: Missed,
        next_at: datetime,
    ) -> bool:
        """Whether it is new; what became of earlier moments stays."""
        values = {
            "cron": cron, "kind": kind, "request": dict(request),
            "missed": missed, "next_at": next_at,
        }  # fmt: skip
        changed = self._connection.execute(
            update(schedules).where(schedules.c.name == name).values(**values)
        ).rowcount
        if changed == 0:
            self._connection.execute(insert(schedules).values(name=name, **values))
        return changed == 0

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        statement = delete(schedules).where(schedules.c.name == name)
        return self._connection.execute(statement).rowcount == 1

    def due(self, now: datetime) -> list[Schedule]:
        rows = self._connection.execute(
            select(schedules).where(schedules.c.next_at <= now).order_by(schedules.c.next_at)
        )
        return [_schedule(row) for row in rows]

    def dealt_with(
        self, schedule: Schedule, *, next_at: datetime, job_id: str | None, note: str
    ) -> None:
        """The due moment of `schedule` is over."""
        self._connection.execute(
            update(schedules)
            .where(schedules.c.name == schedule.name)
            .values(
                next_at=next_at,
                last_at=schedule.next_at,
                last_job_id=job_id if job_id is not None else schedule.last_job_id,
                note=note[:PROGRESS_TEXT_LENGTH],
            )
        )


def _schedule(row: Row[Any]) -> Schedule:
    fields = dict(row._mapping)
    del fields["number"]
    return Schedule(**{**fields, "missed": Missed(fields["missed"])})
