"""Attempts of a run: training that was started again, and whose steps the series shows.

A step gives way to the first later attempt that goes back behind it, or that has the same step
itself. What gave way stays stored, with the attempt that took its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypedDict

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, update

from driftscope_service.store.tables import attempts, shards, steps

OpenedBy = Literal["client", "step"]
#: Before the first step: nothing of the earlier attempts holds.
FROM_SCRATCH: Final = -1


class Refusal(TypedDict):
    """The last step that an attempt did not get."""

    step: int
    problem: str  # slug of the kind of problem
    reason: str  # as it was answered
    at: str  # ISO 8601, with its zone


@dataclass(frozen=True, slots=True)
class Attempt:
    attempt: int  # 1, 2, 3 … within the run
    id: str | None  # the client's; None: a step opened it
    resumed_from: int | None  # the last step of earlier ones that still holds; None: from scratch
    opened_by: OpenedBy
    started_at: datetime
    refused_steps: int
    last_refusal: Refusal | None

    def goes_back_behind(self, step: int) -> bool:
        return step > (FROM_SCRATCH if self.resumed_from is None else self.resumed_from)


@dataclass(frozen=True, slots=True)
class AttemptSteps:
    """What is stored of an attempt."""

    steps: int
    first_step: int | None
    last_step: int | None
    current_steps: int  # that the series shows
    first_current: int | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A step among those of the other attempts."""

    superseded_by: int | None  # None: it is in the series
    replaced: bool  # one that was in the series until now

    @property
    def more(self) -> int:
        """How many more steps the series has."""
        return 1 if self.superseded_by is None and not self.replaced else 0


NO_STEPS: Final = AttemptSteps(0, None, None, 0, None)


class AttemptRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of_run(self, run_number: int) -> list[Attempt]:
        """Every one, oldest first; a run has at least one."""
        names = Attempt.__dataclass_fields__
        rows = self._connection.execute(
            select(*(attempts.c[name] for name in names))
            .where(attempts.c.run_number == run_number)
            .order_by(attempts.c.attempt)
        )
        return [_attempt(row) for row in rows]

    def add(
        self,
        run_number: int,
        attempt: int,
        *,
        id: str | None = None,
        resumed_from: int | None,
        opened_by: OpenedBy = "step",
        started_at: datetime | None = None,
    ) -> None:
        """The newest one: the steps of all others beyond `resumed_from` give way at once."""
        self._connection.execute(
            insert(attempts).values(
                run_number=run_number,
                attempt=attempt,
                id=id,
                resumed_from=resumed_from,
                opened_by=opened_by,
                started_at=started_at or datetime.now(UTC),
            )
        )
        beyond = FROM_SCRATCH if resumed_from is None else resumed_from
        self._connection.execute(
            update(steps)
            .where(in_series(run_number), steps.c.step > beyond)
            .values(superseded_by=attempt)
        )

    def adopt(
        self, run_number: int, attempt: int, *, id: str, resumed_from: int | None, at: datetime
    ) -> None:
        """One that exists, and has nothing yet, is the client's."""
        self._set(
            run_number,
            attempt,
            id=id,
            resumed_from=resumed_from,
            opened_by="client",
            started_at=at,
        )

    def is_empty(self, run_number: int) -> bool:
        """Whether nothing of the run has arrived, neither step nor shard."""
        found = (
            select(table.c.number).where(table.c.run_number == run_number).limit(1)
            for table in (steps, shards)
        )
        return all(self._connection.execute(one).first() is None for one in found)

    def make_way(self, run_number: int, attempt: int, step: int) -> Placed:
        """Before `attempt` stores `step`: earlier ones lose theirs."""
        beyond = func.coalesce(attempts.c.resumed_from, FROM_SCRATCH)
        later = select(func.min(attempts.c.attempt)).where(
            attempts.c.run_number == run_number,
            attempts.c.attempt > attempt,
            beyond < step,
        )
        same = and_(steps.c.run_number == run_number, steps.c.step == step)
        with_it = select(func.min(steps.c.attempt)).where(same, steps.c.attempt > attempt)
        in_place = select(steps.c.attempt).where(same, steps.c.superseded_by.is_(None))
        stood = self._connection.execute(in_place).scalar_one_or_none()
        self._connection.execute(
            update(steps)
            .where(
                same,
                steps.c.attempt < attempt,
                or_(steps.c.superseded_by.is_(None), steps.c.superseded_by > attempt),
            )
            .values(superseded_by=attempt)
        )
        found = [self._connection.execute(one).scalar_one() for one in (later, with_it)]
        superseded_by = min((one for one in found if one is not None), default=None)
        # What an earlier attempt had in the series gives way, whether or not the new step stays.
        return Placed(superseded_by, replaced=stood is not None and stood < attempt)

    def steps_of(self, run_number: int) -> dict[int, AttemptSteps]:
        """By attempt; one without steps is missing."""
        current = steps.c.superseded_by.is_(None)
        rows = self._connection.execute(
            select(
                steps.c.attempt,
                func.count(),
                func.min(steps.c.step),
                func.max(steps.c.step),
                func.count().filter(current),
                func.min(steps.c.step).filter(current),
            )
            .where(steps.c.run_number == run_number)
            .group_by(steps.c.attempt)
        )
        return {row[0]: AttemptSteps(*row[1:]) for row in rows}

    def resumed_at(self, run_number: int) -> list[int]:
        """The first step in the series of every attempt but the first, ascending."""
        rows = self._connection.execute(
            select(func.min(steps.c.step))
            .where(in_series(run_number), steps.c.attempt > 1)
            .group_by(steps.c.attempt)
        )
        return sorted(row[0] for row in rows)

    def has_steps_within(self, run_number: int, attempt: int, above: int, below: int) -> bool:
        """Whether the attempt has a step between the two, neither of them included."""
        found = self._connection.execute(
            select(steps.c.number)
            .where(of_attempt(run_number, attempt), steps.c.step > above, steps.c.step < below)
            .limit(1)
        )
        return found.first() is not None

    def refused(self, run_number: int, attempt: int, step: int, problem: str, reason: str) -> None:
        told: Refusal = {
            "step": step,
            "problem": problem,
            "reason": reason,
            "at": datetime.now(UTC).isoformat(),
        }
        self._set(
            run_number,
            attempt,
            refused_steps=attempts.c.refused_steps + 1,
            last_refusal=told,
        )

    def _set(self, run_number: int, attempt: int, **values: Any) -> None:
        changed = self._connection.execute(
            update(attempts)
            .where(attempts.c.run_number == run_number, attempts.c.attempt == attempt)
            .values(**values)
        ).rowcount
        assert changed == 1, f"there is no attempt {attempt}"


def in_series(run_number: int) -> ColumnElement[bool]:
    """Condition on `steps`: those that the series of the run shows."""
    return and_(steps.c.run_number == run_number, steps.c.superseded_by.is_(None))


def of_attempt(run_number: int, attempt: int | None) -> ColumnElement[bool]:
    """Condition on `steps`: all that one attempt stored; without it, the series."""
    if attempt is None:
        return in_series(run_number)
    return and_(steps.c.run_number == run_number, steps.c.attempt == attempt)


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(**row._mapping)
