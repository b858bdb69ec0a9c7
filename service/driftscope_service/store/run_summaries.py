"""What /metrics shows of runs, for many of them in one query each: who is active, the last step's
analysis.

In: numbers of runs. Out: rows by run. Works within the transaction of `connection`.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, case, func, select

from driftscope_service.store.run_repository import Run
from driftscope_service.store.tables import runs, steps


@dataclass(frozen=True, slots=True)
class ActiveRuns:
    runs: list[Run]  # latest activity first, at most the cap
    active: int  # in all
    idle: int


@dataclass(frozen=True, slots=True)
class LastStep:
    step: int
    received_at: datetime
    metadata: Mapping[str, str]
    analysis: bytes  # JSON object


class RunSummaries:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def active(self, since: datetime, cap: int) -> ActiveRuns:
        """Runs with a PUT, shard or step at `since` or later."""
        found = self._connection.execute(
            select(runs)
            .where(runs.c.updated_at >= since)
            .order_by(runs.c.activity.desc())
            .limit(cap)
        )
        recent = case((runs.c.updated_at >= since, 1), else_=0)
        count, active = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(recent), 0)).select_from(runs)
        ).one()
        return ActiveRuns([Run(**row._mapping) for row in found], active, count - active)

    def last_steps(self, numbers: Collection[int]) -> dict[int, LastStep]:
        """The highest complete step of each run that has one."""
        rows = self._connection.execute(
            select(
                steps.c.run_number,
                steps.c.step,
                steps.c.received_at,
                steps.c.metadata,
                steps.c.analysis,
            )
            .join(runs, and_(runs.c.number == steps.c.run_number, runs.c.last_step == steps.c.step))
            .where(runs.c.number.in_(numbers))
        )
        return {
            number: LastStep(step, received_at, metadata, zlib.decompress(analysis))
            for number, step, received_at, metadata, analysis in rows
        }
