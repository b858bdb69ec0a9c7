"""Runs in the database."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, insert, select, update

from driftscope_service.auth import reach
from driftscope_service.runs.store.attempts import (
    AttemptRepository,
    OpenedBy,
    Placed,
    in_series,
)
from driftscope_service.runs.store.steps import NewStep
from driftscope_service.store.tables import RUN_TEXT_LENGTH, runs, steps

#: What describes a run, in a PUT and in the metadata of a pushed step alike.
DESCRIPTION = ("model", "framework", "engine", "rollout_dtype", "trainer_dtype")
#: Of the diagnosis of the last step; lists sort and filter by them.
OF_LAST_STEP = ("verdict", "excess", "cause", "confidence")


@dataclass(frozen=True, slots=True)
class Run:
    number: int
    name: str
    model: str | None
    framework: str | None
    engine: str | None
    rollout_dtype: str | None
    trainer_dtype: str | None
    labels: dict[str, str]
    created_at: datetime
    updated_at: datetime
    activity: int
    complete_steps: int  # that the series holds
    last_step: int | None  # the highest of the series
    last_step_at: datetime | None  # when the latest arrived, whatever its number
    finished_at: datetime | None  # None: it is running, or ended without saying so
    # Over every step that ever came in, those of earlier attempts too: they never fall.
    received_steps: int
    refused_steps: int
    compared_tokens: int
    nonfinite_tokens: int
    confident_disagreements: int
    attempt: int  # the newest; they are numbered from 1
    revision: int  # grows with every change of its steps or attempts
    note: str | None
    pinned_at: datetime | None  # as the baseline of the runs of its model
    # Of the last step of the series, with what the steps together are surer of; None: no step, or
    # stored by a version without a diagnosis.
    verdict: str | None
    excess: float | None
    cause: str | None
    confidence: float | None
    crossed: int  # limits

    @property
    def resumed(self) -> bool:
        """Started again under its name, at least once."""
        return self.attempt > 1


class RunRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Run | None:
        row = self._connection.execute(
            select(runs).where(runs.c.name == name, reach.current().visible(runs.c.name))
        ).one_or_none()
        return None if row is None else run_of_row(row)

    def page(self, limit: int, *, before: int | None = None) -> list[Run]:
        """Latest activity first; `before` is the activity of the last one seen."""
        statement = (
            select(runs)
            .where(reach.current().visible(runs.c.name))
            .order_by(runs.c.activity.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(runs.c.activity < before)
        return [run_of_row(row) for row in self._connection.execute(statement)]

    def put(
        self, name: str, fields: Mapping[str, Any], *, finished: bool | None = None
    ) -> tuple[Run, bool]:
        """The run and whether it is new; `fields` replace, the others stay. `finished`: it has
        ended, it goes on, or nothing is said of that."""
        run = self.get(name)
        if run is None:
            assert not finished, "a run that has ended is known"
            return self._add(name, fields), True
        self._update(run.number, **fields, **_end_of(run, finished))
        return self._require(name), False

    def of_step(self, name: str, metadata: Mapping[str, str]) -> Run:
        """The run that a step belongs to; what is not known of it is taken from the step."""
        description = {
            field: metadata[field][:RUN_TEXT_LENGTH] for field in DESCRIPTION if field in metadata
        }
        run = self.get(name)
        if run is None:
            return self._add(name, description)
        # An attempt may have made the run, which says nothing of it.
        new = {field: text for field, text in description.items() if getattr(run, field) is None}
        if not new:
            return run
        self._update(run.number, **new)
        return self._require(name)

    def step_completed(self, number: int, new: NewStep, placed: Placed | None = None) -> None:
        """After the step was added. `placed`: what adding it said; without, all are counted."""
        count = None if placed is None else runs.c.complete_steps + placed.more
        self._update(
            number,
            last_step_at=_now(),
            finished_at=None,
            received_steps=runs.c.received_steps + 1,
            compared_tokens=runs.c.compared_tokens + new.tokens,
            nonfinite_tokens=runs.c.nonfinite_tokens + new.nonfinite_tokens,
            confident_disagreements=runs.c.confident_disagreements + new.confident_disagreements,
            **self._series(number, count),
        )

    def series_changed(self, number: int) -> None:
        """After steps of the run were taken away, which does not count as activity of the run."""
        self._connection.execute(
            update(runs).where(runs.c.number == number).values(**self._series(number))
        )

    def open_attempt(
        self,
        run: Run,
        *,
        id: str | None = None,
        resumed_from: int | None,
        opened_by: OpenedBy,
        started_at: datetime | None = None,
    ) -> int:
        """Its number. Steps beyond `resumed_from` leave the series at once; a run that has nothing
        yet only learns what its first attempt is called."""
        attempts = AttemptRepository(self._connection)
        number = run.attempt
        if id is not None and number == 1 and attempts.is_empty(run.number):
            attempts.adopt(run.number, 1, id=id, resumed_from=resumed_from, at=started_at or _now())
        else:
            number += 1
            attempts.add(
                run.number,
                number,
                id=id,
                resumed_from=resumed_from,
                opened_by=opened_by,
                started_at=started_at,
            )
        self._update(run.number, attempt=number, finished_at=None, **self._series(run.number))
        return number

    def step_refused(self, run: Run, attempt: int, step: int, *, problem: str, reason: str) -> None:
        """`problem`: its slug."""
        AttemptRepository(self._connection).refused(run.number, attempt, step, problem, reason)
        self._update(run.number, refused_steps=runs.c.refused_steps + 1)

    def _series(self, number: int, count: ColumnElement[int] | None = None) -> dict[str, Any]:
        """What a run says of its series, and a new revision. `count`: where it is known."""
        if count is None:  # milliseconds for ten thousand steps
            every = select(func.count()).select_from(steps).where(in_series(number))
            count = every.scalar_subquery()
        last = self._connection.execute(
            select(func.max(steps.c.step)).where(in_series(number))
        ).scalar_one()
        told = self._connection.execute(
            select(steps.c.verdict, steps.c.crossed).where(in_series(number), steps.c.step == last)
        ).one_or_none()
        verdict = {} if told is None or told.verdict is None else told.verdict
        return {
            "complete_steps": count,
            "last_step": last,
            "revision": runs.c.revision + 1,
            "crossed": 0 if told is None else len(told.crossed),
            **{name: verdict.get(name) for name in OF_LAST_STEP},
        }

    def shard_arrived(self, number: int) -> None:
        self._update(number, finished_at=None)

    def _add(self, name: str, fields: Mapping[str, Any]) -> Run:
        now = _now()
        values = {"labels": {}, **fields}
        self._connection.execute(
            insert(runs).values(
                name=name,
                created_at=now,
                updated_at=now,
                activity=_next_activity(),
                complete_steps=0,
                **values,
            )
        )
        run = self._require(name)
        AttemptRepository(self._connection).add(run.number, 1, resumed_from=None, started_at=now)
        return run

    def _update(self, number: int, **values: Any) -> None:
        self._connection.execute(
            update(runs)
            .where(runs.c.number == number)
            .values(updated_at=_now(), activity=_next_activity(), **values)
        )

    def _require(self, name: str) -> Run:
        run = self.get(name)
        assert run is not None
        return run


def _end_of(run: Run, finished: bool | None) -> dict[str, datetime | None]:
    """When repeated, the first end counts."""
    if finished is None or (finished and run.finished_at is not None):
        return {}
    return {"finished_at": _now() if finished else None}


def _next_activity() -> ColumnElement[int]:
    every = runs.alias()
    return select(func.coalesce(func.max(every.c.activity), 0) + 1).scalar_subquery()


def run_of_row(row: Row[Any]) -> Run:
    return Run(**{name: row._mapping[name] for name in Run.__dataclass_fields__})


def _now() -> datetime:
    return datetime.now(UTC)


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
        rows = self._connection.execute(
            select(runs)
            .where(runs.c.updated_at >= since)
            .order_by(runs.c.activity.desc())
            .limit(cap)
        )
        recent = case((runs.c.updated_at >= since, 1), else_=0)
        count, active = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(recent), 0)).select_from(runs)
        ).one()
        return ActiveRuns([run_of_row(row) for row in rows], active, count - active)

    def last_steps(self, numbers: Collection[int]) -> dict[int, LastStep]:
        """The highest step in the series of each run that has one."""
        rows = self._connection.execute(
            select(
                steps.c.run_number,
                steps.c.step,
                steps.c.received_at,
                steps.c.metadata,
                steps.c.analysis,
            )
            .join(runs, and_(runs.c.number == steps.c.run_number, runs.c.last_step == steps.c.step))
            .where(runs.c.number.in_(numbers), steps.c.superseded_by.is_(None))
        )
        return {
            number: LastStep(step, received_at, metadata, zlib.decompress(analysis))
            for number, step, received_at, metadata, analysis in rows
        }
