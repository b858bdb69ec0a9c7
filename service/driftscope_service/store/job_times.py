"""When jobs waited and how long they took, as /metrics shows it.

Works within the transaction of `connection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from driftscope_service.jobs.job import JobState
from driftscope_service.store.tables import jobs


@dataclass(frozen=True, slots=True)
class LastJob:
    kind: str
    state: JobState
    seconds: float


class JobTimes:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def oldest_queued_at(self) -> datetime | None:
        found: datetime | None = self._connection.execute(
            select(jobs.c.created_at)
            .where(jobs.c.state == JobState.QUEUED)
            .order_by(jobs.c.number)
            .limit(1)
        ).scalar_one_or_none()
        return found

    def last_finished(self) -> list[LastJob]:
        """The last job of every kind and final state, of those that were started."""
        newest = (
            select(func.max(jobs.c.number))
            .where(jobs.c.started_at.is_not(None), jobs.c.finished_at.is_not(None))
            .group_by(jobs.c.kind, jobs.c.state)
        )
        rows = self._connection.execute(
            select(jobs.c.kind, jobs.c.state, jobs.c.started_at, jobs.c.finished_at)
            .where(jobs.c.number.in_(newest))
            .order_by(jobs.c.kind, jobs.c.state)
        )
        return [
            LastJob(kind, JobState(state), (finished - started).total_seconds())
            for kind, state, started, finished in rows
        ]
