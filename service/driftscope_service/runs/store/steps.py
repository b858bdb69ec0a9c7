"""Complete steps in the database: written, read, and one number over many of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from sqlalchemy import Connection, Row, Select, and_, func, insert, select, update

from driftscope_service.auth import reach
from driftscope_service.runs.store.attempts import (
    AttemptRepository,
    Placed,
    of_attempt,
)
from driftscope_service.store.tables import runs, steps


class RawFile(TypedDict):
    """An upload as it arrived."""

    file: str  # in the folder of StepFiles
    format: str


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What a series says of a step's diagnosis, without reading its analysis."""

    verdict: str  # of COMPARISON_VERDICTS
    excess: float | None
    cause: str | None  # the named cause, `unexplained`, or None: nothing to explain
    confidence: float | None  # of the named cause
    entropy: float | None = None  # nats, mean over tokens, where entropies were pushed
    weights: str | None = None  # kind of the pushed weights_digest


@dataclass(frozen=True, slots=True)
class NewStep:
    step: int
    content_sha256: str
    size_bytes: int
    shards: int
    raw_files: Sequence[RawFile]
    tokens: int
    sequences: int
    metadata: Mapping[str, str]
    crossed: Sequence[str]
    series: Mapping[str, float | None]
    analysis: bytes  # JSON object
    verdict: StepVerdict | None = None
    keeps_tokens: bool = True  # False: no process could hold them to show them

    @property
    def nonfinite_tokens(self) -> int:
        return int(self.series.get("nonfinite_tokens") or 0)

    @property
    def confident_disagreements(self) -> int:
        """The series has the share alone; times its tokens it is a whole number again."""
        return round((self.series.get("confident_disagreement_share") or 0.0) * self.tokens)


@dataclass(frozen=True, slots=True)
class StoredStep:
    number: int
    run: str
    step: int
    content_sha256: str
    received_at: datetime
    tokens: int
    sequences: int
    size_bytes: int
    shards: int
    metadata: dict[str, str]
    kept_bytes: int
    analysis: bytes  # JSON object
    attempt: int
    superseded_by: int | None  # the attempt that took its place; None: it is in the series


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    step: int
    attempt: int
    superseded_by: int | None
    received_at: datetime
    tokens: int
    sequences: int
    series: dict[str, float | None]
    crossed: list[str]
    kept_bytes: int
    verdict: StepVerdict | None  # None: stored by a version without a diagnosis


@dataclass(frozen=True, slots=True)
class StepTokens:
    """A step whose tokens are on disk."""

    number: int
    run: str
    step: int
    superseded: bool  # by a later attempt
    received_at: datetime
    kept_bytes: int
    crossed: bool  # a limit
    raw_files: list[RawFile] | None
    tokens_file: str | None

    @property
    def files(self) -> list[str]:
        raw = [raw["file"] for raw in self.raw_files or ()]
        return raw if self.tokens_file is None else [*raw, self.tokens_file]


class StepRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, run_number: int, new: NewStep, *, attempt: int = 1) -> Placed:
        """Earlier attempts lose the step; where a later one has its place, it is kept beside."""
        placed = AttemptRepository(self._connection).make_way(run_number, attempt, new.step)
        self._connection.execute(
            insert(steps).values(
                run_number=run_number,
                step=new.step,
                content_sha256=new.content_sha256,
                received_at=datetime.now(UTC),
                tokens=new.tokens,
                sequences=new.sequences,
                size_bytes=new.size_bytes,
                shards=new.shards,
                kept_bytes=new.size_bytes if new.keeps_tokens else 0,
                raw_files=list(new.raw_files) if new.keeps_tokens else None,
                crossed=list(new.crossed),
                series=dict(new.series),
                verdict=None if new.verdict is None else asdict(new.verdict),
                metadata=dict(new.metadata),
                analysis=zlib.compress(new.analysis),
                attempt=attempt,
                superseded_by=placed.superseded_by,
            )
        )
        return placed

    def get(self, run: str, step: int, *, attempt: int | None = None) -> StoredStep | None:
        """Of that attempt; without one the step of the series, or else the latest that had it."""
        names = StoredStep.__dataclass_fields__.keys() - {"run"}
        statement = (
            select(runs.c.name.label("run"), *(steps.c[name] for name in names))
            .join_from(steps, runs)
            .where(runs.c.name == run, steps.c.step == step, reach.current().visible(runs.c.name))
        )
        row = self._connection.execute(_chosen(statement, attempt)).first()
        if row is None:
            return None
        return StoredStep(**{**row._mapping, "analysis": zlib.decompress(row.analysis)})

    def attempts_with(self, run_number: int, step: int) -> list[int]:
        """The attempts that have this step complete."""
        rows = self._connection.execute(
            select(steps.c.attempt).where(steps.c.run_number == run_number, steps.c.step == step)
        )
        return [row.attempt for row in rows]

    def points(
        self, run_number: int, limit: int, *, after: int = -1, attempt: int | None = None
    ) -> list[SeriesPoint]:
        """Of the series, or of one attempt; ascending by step. Reads no analysis."""
        statement = _points(run_number, attempt).where(steps.c.step > after).order_by(steps.c.step)
        return [_point(row) for row in self._connection.execute(statement.limit(limit))]

    def latest_points(
        self, run_number: int, limit: int, *, attempt: int | None = None
    ) -> list[SeriesPoint]:
        """The highest steps of the series, or of one attempt, ascending."""
        statement = _points(run_number, attempt).order_by(steps.c.step.desc())
        rows = self._connection.execute(statement.limit(limit))
        return [_point(row) for row in rows][::-1]

    def kept(self) -> list[StepTokens]:
        """Every step with tokens on disk, oldest first."""
        rows = self._connection.execute(
            select(
                steps.c.number,
                runs.c.name.label("run"),
                steps.c.step,
                steps.c.superseded_by.is_not(None).label("superseded"),
                steps.c.received_at,
                steps.c.kept_bytes,
                steps.c.crossed,
                steps.c.raw_files,
                steps.c.tokens_file,
            )
            .join_from(steps, runs)
            .where(steps.c.kept_bytes > 0)
            .order_by(steps.c.number)
        )
        return [
            StepTokens(
                **{
                    **row._mapping,
                    "crossed": bool(row.crossed),
                    "superseded": bool(row.superseded),
                }
            )
            for row in rows
        ]

    def converted(self, number: int, tokens_file: str, size_bytes: int) -> bool:
        """The raw uploads have become one file. False: the step was deleted, dropped or converted
        by another instance meanwhile."""
        changed = self._connection.execute(
            update(steps)
            .where(steps.c.number == number, steps.c.kept_bytes > 0, steps.c.tokens_file.is_(None))
            .values(raw_files=None, tokens_file=tokens_file, kept_bytes=size_bytes)
        ).rowcount
        return changed == 1

    def dropped(self, number: int) -> bool:
        """The tokens are no longer kept. False: the step was deleted meanwhile."""
        return self._set(number, raw_files=None, tokens_file=None, kept_bytes=0)

    def exists(self, number: int) -> bool:
        found = select(steps.c.number).where(steps.c.number == number)
        return self._connection.execute(found).first() is not None

    def _set(self, number: int, **values: Any) -> bool:
        changed = self._connection.execute(
            update(steps).where(steps.c.number == number).values(**values)
        ).rowcount
        return changed == 1


def _points(run_number: int, attempt: int | None = None) -> Select[Any]:
    names = SeriesPoint.__dataclass_fields__
    return select(*(steps.c[name] for name in names)).where(of_attempt(run_number, attempt))


def _chosen(statement: Select[Any], attempt: int | None) -> Select[Any]:
    """One row of those of a step."""
    if attempt is not None:
        return statement.where(steps.c.attempt == attempt)
    in_place = steps.c.superseded_by.is_(None)
    return statement.order_by(in_place.desc(), steps.c.attempt.desc()).limit(1)


def _point(row: Row[Any]) -> SeriesPoint:
    return SeriesPoint(**{**row._mapping, "verdict": _verdict(row.verdict)})


def _verdict(stored: Mapping[str, Any] | None) -> StepVerdict | None:
    return None if stored is None else StepVerdict(**stored)


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """raw_files until they are converted, then tokens_file, then neither."""

    number: int  # the step's, never reused
    tokens: int
    sequences: int
    raw_files: list[RawFile] | None
    tokens_file: str | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    before: int | None
    after: int | None


def token_place(
    connection: Connection, run: str, step: int, *, attempt: int | None = None
) -> TokenPlace | None:
    """None if there is no such complete step. `attempt`: as in StepRepository.get."""
    names = TokenPlace.__dataclass_fields__
    statement = (
        select(*(steps.c[name] for name in names))
        .join_from(steps, runs)
        .where(runs.c.name == run, steps.c.step == step, reach.current().visible(runs.c.name))
    )
    row = connection.execute(_chosen(statement, attempt)).first()
    return None if row is None else TokenPlace(*row)


def neighbours(
    connection: Connection, run_number: int, step: int, *, attempt: int | None = None
) -> Neighbours:
    """In the series, or within one attempt."""
    of_run = of_attempt(run_number, attempt)
    before = select(func.max(steps.c.step)).where(of_run, steps.c.step < step)
    after = select(func.min(steps.c.step)).where(of_run, steps.c.step > step)
    return Neighbours(
        connection.execute(before).scalar_one(), connection.execute(after).scalar_one()
    )


@dataclass(frozen=True, slots=True)
class MetricPoint:
    step: int
    value: float | None
    crossed: bool  # this metric crossed a limit


@dataclass(frozen=True, slots=True)
class VerdictPoint:
    step: int
    verdict: StepVerdict | None
    attempt: int = 1


def verdict_points(
    connection: Connection, run_number: int, limit: int, *, attempt: int | None = None
) -> list[VerdictPoint]:
    """Of the highest steps of the series, or of one attempt, ascending."""
    rows = connection.execute(
        select(steps.c.step, steps.c.verdict, steps.c.attempt)
        .where(of_attempt(run_number, attempt))
        .order_by(steps.c.step.desc())
        .limit(limit)
    )
    return [VerdictPoint(step, _verdict(stored), of) for step, stored, of in rows][::-1]


def metric_points(
    connection: Connection,
    run_number: int,
    metric: str,
    *,
    first: int = 0,
    last: int | None = None,
    attempt: int | None = None,
) -> list[MetricPoint]:
    """Every step of the series, or of one attempt, from `first` to `last`, both included,
    ascending."""
    value = steps.c.series[metric].as_float()
    statement = (
        select(steps.c.step, value, steps.c.crossed)
        .where(of_attempt(run_number, attempt), steps.c.step >= first)
        .order_by(steps.c.step)
    )
    if last is not None:
        statement = statement.where(steps.c.step <= last)
    return [
        MetricPoint(step, number, metric in crossed)
        for step, number, crossed in connection.execute(statement)
    ]


def superseded_values(
    connection: Connection,
    run_number: int,
    metric: str,
    attempts: int,
    *,
    first: int = 0,
    last: int | None = None,
) -> dict[int, list[tuple[int, float]]]:
    """Of the latest `attempts` that lost steps: what the series no longer shows, as (step, value)
    ascending, by attempt."""
    lost = and_(
        steps.c.run_number == run_number,
        steps.c.superseded_by.is_not(None),
        steps.c.step >= first,
        *([] if last is None else [steps.c.step <= last]),
    )
    latest = (
        select(steps.c.attempt).where(lost).distinct().order_by(steps.c.attempt.desc())
    ).limit(attempts)
    rows = connection.execute(
        select(steps.c.attempt, steps.c.step, steps.c.series[metric].as_float())
        .where(lost, steps.c.attempt.in_(latest))
        .order_by(steps.c.attempt, steps.c.step)
    )
    found: dict[int, list[tuple[int, float]]] = {}
    for attempt, step, value in rows:
        if value is not None:
            found.setdefault(attempt, []).append((step, value))
    return found


def points_before(
    connection: Connection,
    run_number: int,
    limit: int,
    *,
    before: int | None,
    attempt: int | None = None,
) -> list[SeriesPoint]:
    """Of the series, or of one attempt: the highest steps below `before`, or of all, descending."""
    statement = _points(run_number, attempt).order_by(steps.c.step.desc()).limit(limit)
    if before is not None:
        statement = statement.where(steps.c.step < before)
    return [_point(row) for row in connection.execute(statement)]
