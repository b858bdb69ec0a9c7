"""Runs in the database."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, insert, select, update

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
    complete_steps: int
    last_step: int | None  # the highest complete one
    last_step_at: datetime | None  # when the latest arrived, whatever its number
    finished_at: datetime | None  # None: it is running, or ended without saying so
    # Over the complete steps.
    compared_tokens: int
    nonfinite_tokens: int
    confident_disagreements: int
    attempt: int  # the newest
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


class RunRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Run | None:
        row = self._connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
        return None if row is None else run_of_row(row)

    def page(self, limit: int, *, before: int | None = None) -> list[Run]:
        """Latest activity first; `before` is the activity of the last one seen."""
        statement = select(runs).order_by(runs.c.activity.desc()).limit(limit)
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
        """The run that a step belongs to; an unknown one is made from the step's metadata."""
        description = {
            field: metadata[field][:RUN_TEXT_LENGTH] for field in DESCRIPTION if field in metadata
        }
        return self.get(name) or self._add(name, description)

    def step_completed(self, number: int, new: NewStep) -> None:
        self._update(
            number,
            last_step_at=_now(),
            finished_at=None,
            compared_tokens=runs.c.compared_tokens + new.tokens,
            nonfinite_tokens=runs.c.nonfinite_tokens + new.nonfinite_tokens,
            confident_disagreements=runs.c.confident_disagreements + new.confident_disagreements,
        )
        self.series_changed(number)

    def series_changed(self, number: int) -> None:
        """What the row says of the series, after steps came in or were taken away."""
        series = and_(steps.c.run_number == number, steps.c.superseded_by.is_(None))
        count, last = self._connection.execute(
            select(func.count(), func.max(steps.c.step)).where(series)
        ).one()
        told = self._connection.execute(
            select(steps.c.verdict, steps.c.crossed).where(series, steps.c.step == last)
        ).one_or_none()
        verdict = {} if told is None else told.verdict or {}
        values = {name: verdict.get(name) for name in OF_LAST_STEP}
        self._connection.execute(
            update(runs)
            .where(runs.c.number == number)
            .values(
                complete_steps=count,
                last_step=last,
                revision=runs.c.revision + 1,
                crossed=0 if told is None else len(told.crossed),
                **values,
            )
        )

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
        return self._require(name)

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
