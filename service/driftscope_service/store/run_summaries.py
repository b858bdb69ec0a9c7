"""What /metrics shows of runs, for many of them in one query each: who is active, the last step's
analysis, and totals over all steps.

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


@dataclass(frozen=True, slots=True)
class StepTotals:
    tokens: int
    nonfinite_tokens: int
    confident_disagreements: int

    def __add__(self, other: StepTotals) -> StepTotals:
        return StepTotals(
            self.tokens + other.tokens,
            self.nonfinite_tokens + other.nonfinite_tokens,
            self.confident_disagreements + other.confident_disagreements,
        )


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

    def newest_step_number(self) -> int:
        """Of all runs, in the order of arrival; 0 where there is none."""
        newest: int | None = self._connection.execute(select(func.max(steps.c.number))).scalar()
        return newest or 0

    def totals(self, numbers: Collection[int], *, after: int = 0) -> dict[int, StepTotals]:
        """Over the complete steps that arrived after step number `after`."""
        share = steps.c.series["confident_disagreement_share"].as_float()
        rows = self._connection.execute(
            select(
                steps.c.run_number,
                func.sum(steps.c.tokens),
                func.sum(steps.c.series["nonfinite_tokens"].as_float()),
                # The series has the share alone; times its tokens it is a whole number again.
                func.sum(func.round(share * steps.c.tokens)),
            )
            .where(steps.c.run_number.in_(numbers), steps.c.number > after)
            .group_by(steps.c.run_number)
        )
        return {
            number: StepTotals(int(tokens), int(nonfinite or 0), int(confident or 0))
            for number, tokens, nonfinite, confident in rows
        }
