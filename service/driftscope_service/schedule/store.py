"""Schedules: what the service starts by itself and when, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from croniter import croniter
from sqlalchemy import Connection, Row, delete, insert, select, update

from driftscope_service.store.tables import PROGRESS_TEXT_LENGTH, schedules

#: Enough for five fields with lists; the table holds no more.
MAX_CRON_LENGTH: Final = 100
#: A due moment that is older was missed: the service was down or the machine asleep.
MISSED_AFTER_S: Final = 300.0


class Missed(StrEnum):
    """For moments that passed while the service was down. Several count as one."""

    ONCE = "once"  # made up for, a single time, at the next start
    SKIP = "skip"  # left out


class CronError(ValueError):
    """An expression that never matches a moment."""


@dataclass(frozen=True, slots=True)
class Schedule:
    name: str
    cron: str  # five fields, UTC
    kind: str  # the job's
    request: dict[str, Any]  # the job's, as the probe process reads it
    missed: Missed
    next_at: datetime  # the next due moment, also while the service is down
    last_at: datetime | None  # the last due moment that was dealt with
    last_job_id: str | None
    note: str | None  # what became of that moment, in words


def next_moment(cron: str, after: datetime) -> datetime:
    """The first moment of `cron` strictly after `after`, in UTC. Raises CronError."""
    fields = cron.split()
    if len(cron) > MAX_CRON_LENGTH or len(fields) != 5 or not croniter.is_valid(cron):
        raise CronError(
            f"{cron[:MAX_CRON_LENGTH]!r} is not accepted: give five fields (minute, hour, day, "
            "month, weekday), for example '30 3 * * *' for 03:30 UTC every night"
        )
    try:
        moment = croniter(cron, after).get_next(datetime)
    except (ValueError, KeyError) as error:  # no moment within croniter's fifty years
        raise CronError(f"no moment follows from {cron!r}: {error}") from None
    assert isinstance(moment, datetime)
    return moment.astimezone(UTC)


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
