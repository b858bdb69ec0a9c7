"""Notices: that the answer of a run is another one now, waiting to be sent.

In: the run before and after a step, within the transaction that stores the step, so that a change
is noted once whichever replica took the step. Out: rows in order, one per change that nobody was
told of yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.runs.store.runs import Run
from driftscope_service.store.tables import new_id, notices

#: From here on somebody wants to know; below it the sides agree, bit by bit or up to rounding.
TOLD_FROM: Final = COMPARISON_RANK["above_floor"]
#: A receiver that is away for long gets the newest. Every active run of a large service has changed
#: its answer twenty times by then.
MOST_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a notice is about; None: the run had no step, or one without a diagnosis."""

    verdict: str | None
    cause: str | None

    @staticmethod
    def of(run: Run) -> Answer:
        return Answer(run.verdict, run.cause)

    @property
    def told(self) -> bool:
        return self.verdict is not None and COMPARISON_RANK[self.verdict] >= TOLD_FROM


@dataclass(frozen=True, slots=True)
class Notice:
    number: int
    id: str
    run: str
    model: str | None
    step: int
    verdict: str
    cause: str | None
    confidence: float | None
    excess: float | None
    previous_verdict: str | None
    previous_cause: str | None
    created_at: datetime
    attempts: int  # that were begun
    not_before: datetime | None

    @property
    def previous(self) -> Answer:
        return Answer(self.previous_verdict, self.previous_cause)


class NoticeRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def note(self, before: Run, after: Run) -> int | None:
        """How many old notices made room for that of a change; None: there is nothing to tell."""
        was, now = Answer.of(before), Answer.of(after)
        if now.verdict is None or now == was or not (now.told or was.told):
            return None
        waiting = self._last_untold(after.name)
        if waiting is not None:
            if now == waiting.previous or not (now.told or waiting.previous.told):
                self.remove(waiting.number)  # back where it was before anybody was told
            else:
                self._set(waiting.number, **_values(after))
            return 0
        dropped = self._make_room()
        self._connection.execute(
            insert(notices).values(
                id=new_id("notice"),
                run=after.name,
                previous_verdict=was.verdict,
                previous_cause=was.cause,
                created_at=datetime.now(UTC),
                attempts=0,
                **_values(after),
            )
        )
        return dropped

    def waiting(self) -> list[Notice]:
        """In order; at most MOST_WAITING."""
        rows = self._connection.execute(select(notices).order_by(notices.c.number))
        return [_notice(row) for row in rows]

    def begin(self, number: int, attempts: int, until: datetime) -> bool:
        """Before it is sent: nobody else sends it until then. False: it is gone, or another
        process has begun it."""
        changed = self._connection.execute(
            update(notices)
            .where(notices.c.number == number, notices.c.attempts == attempts)
            .values(attempts=attempts + 1, not_before=until)
        ).rowcount
        return changed == 1

    def wait_until(self, number: int, when: datetime) -> None:
        self._set(number, not_before=when)

    def remove(self, number: int) -> None:
        self._connection.execute(delete(notices).where(notices.c.number == number))

    def _last_untold(self, run: str) -> Notice | None:
        """The newest of the run, if no attempt at it was begun: it can still say something else."""
        row = self._connection.execute(
            select(notices).where(notices.c.run == run).order_by(notices.c.number.desc()).limit(1)
        ).one_or_none()
        return None if row is None or row.attempts else _notice(row)

    def _make_room(self) -> int:
        every = select(func.count()).select_from(notices)
        over = self._connection.execute(every).scalar_one() - MOST_WAITING + 1
        if over <= 0:
            return 0
        oldest = select(notices.c.number).order_by(notices.c.number).limit(over)
        self._connection.execute(delete(notices).where(notices.c.number.in_(oldest)))
        return int(over)

    def _set(self, number: int, **values: Any) -> None:
        self._connection.execute(update(notices).where(notices.c.number == number).values(**values))


def due(waiting: Sequence[Notice], now: datetime) -> list[Notice]:
    """Those that may be sent: of every run the oldest alone, so that they arrive in order."""
    first: dict[str, Notice] = {}
    for notice in waiting:
        first.setdefault(notice.run, notice)
    return [one for one in first.values() if one.not_before is None or one.not_before <= now]


def _values(run: Run) -> dict[str, Any]:
    return {
        **{"model": run.model, "step": run.last_step, "verdict": run.verdict, "cause": run.cause},
        **{"confidence": run.confidence, "excess": run.excess},
    }


def _notice(row: Row[Any]) -> Notice:
    return Notice(**row._mapping)
