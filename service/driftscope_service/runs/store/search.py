"""Runs found by what describes them, by what their last step says, and by their marks.

In: a RunFilter and an order. Out: runs, page by page, each page beginning after a Place, which
stays right while runs come and go; the number of matches; the words that a filter can be made of.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    case,
    column,
    exists,
    func,
    literal,
    or_,
    select,
)

from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.auth import reach
from driftscope_service.runs.store.progress import Progress, has_progress
from driftscope_service.runs.store.runs import Run, run_of_row
from driftscope_service.store.tables import run_tags, runs

Order: TypeAlias = Literal["activity", "worst", "name", "created"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
#: Of one column, as offered while one types.
MOST_CHOICES: Final = 100
#: A name of 128 characters, as JSON and then base64, with room.
MAX_PLACE_LENGTH: Final = 400


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What all of it holds for is found; None and () ask nothing. Case does not matter (of letters
    beyond ASCII it does on SQLite)."""

    text: str | None = None  # each word in the name, the note, a tag or a label
    model: str | None = None
    framework: str | None = None
    engine: str | None = None  # `vllm` finds `vllm 0.32.0` too
    dtype: str | None = None  # of either side
    states: tuple[Progress, ...] = ()  # any of them
    verdicts: tuple[str, ...] = ()  # any of them, of COMPARISON_VERDICTS
    cause: str | None = None
    tags: tuple[str, ...] = ()  # every one of them
    since: datetime | None = None  # a PUT, shard or step at this moment or later
    until: datetime | None = None  # the last of them at this moment or before


@dataclass(frozen=True, slots=True)
class Place:
    """Of the last run that was shown, in an order."""

    order: Order
    keys: tuple[Any, ...]  # the values that _KEYS sort by

    def encode(self) -> str:
        text = json.dumps([self.order, *self.keys], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(run: Run, order: Order) -> Place:
    match order:
        case "activity":
            return Place(order, (run.activity,))
        case "name":
            return Place(order, (run.name,))
        case "created":
            return Place(order, (run.created_at.isoformat(), run.number))
        case "worst":
            rank = 0 if run.verdict is None else _RANKS[run.verdict]
            excess = _NO_EXCESS if run.excess is None else run.excess
            return Place(order, (rank, excess, run.number))


def decode_place(text: str, order: Order) -> Place:
    """Raises ValueError where `text` is not a place in this order."""
    try:
        padded = text + "=" * (-len(text) % 4)
        decoded = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("not a cursor of this service") from error
    kinds = _KINDS[order]
    if not isinstance(decoded, list) or len(decoded) != len(kinds) + 1 or decoded[0] != order:
        raise ValueError(f"not a cursor of this list in the order {order}")
    keys = decoded[1:]
    if not all(_fits(key, kind) for key, kind in zip(keys, kinds, strict=True)):
        raise ValueError("not a cursor of this service")
    return Place(order, tuple(keys))


def _fits(key: Any, kind: type) -> bool:
    if kind is datetime:
        try:
            return datetime.fromisoformat(key).tzinfo is not None
        except (TypeError, ValueError):
            return False
    if kind is str:
        return isinstance(key, str) and "\0" not in key
    if isinstance(key, bool) or not isinstance(key, int | float):
        return False
    # What the columns can hold: SQLite and PostgreSQL refuse a larger integer.
    return kind is float or (isinstance(key, int) and abs(key) < 2**31)


_KINDS: Final[Mapping[Order, tuple[type, ...]]] = {
    "activity": (int,),
    "worst": (int, float, int),
    "name": (str,),
    "created": (datetime, int),
}
#: From 1; 0: no verdict, as before the first step.
_RANKS: Final = {verdict: rank + 1 for verdict, rank in COMPARISON_RANK.items()}
#: Below every excess: nothing was measured.
_NO_EXCESS: Final = -1.0
_RANK: Final = case(_RANKS, value=runs.c.verdict, else_=0)
_EXCESS: Final = func.coalesce(runs.c.excess, _NO_EXCESS)
#: By bytes, as SQLite does anyway; PostgreSQL would sort by the language of its server.
_BYTES: Final = {"postgresql": "C"}


class RunSearch:
    """Works within the transaction of `connection`. `now`: what is stale depends on it."""

    def __init__(self, connection: Connection, now: datetime | None = None) -> None:
        self._connection = connection
        self.now = now or datetime.now(UTC)

    def page(
        self, wanted: RunFilter, order: Order, limit: int, *, after: Place | None = None
    ) -> list[Run]:
        keys, descending = self._keys(order)
        statement = self._matching(select(runs), wanted).limit(limit)
        statement = statement.order_by(*(key.desc() if descending else key for key in keys))
        if after is not None:
            assert after.order == order, "a place belongs to its order"
            statement = statement.where(_beyond(keys, _values(after), descending))
        return [run_of_row(row) for row in self._connection.execute(statement)]

    def count(self, wanted: RunFilter) -> int:
        statement = self._matching(select(func.count()).select_from(runs), wanted)
        return int(self._connection.execute(statement).scalar_one())

    def choices(self) -> Choices:
        seen = reach.current().visible(runs.c.name)
        seen_tags = run_tags.c.run_number.in_(select(runs.c.number).where(seen))

        def distinct(
            *columns: ColumnElement[str | None], where: ColumnElement[bool] = seen
        ) -> list[str]:
            found: set[str] = set()
            for one in columns:
                statement = select(one).distinct().where(one.is_not(None), where).order_by(one)
                rows = self._connection.execute(statement.limit(MOST_CHOICES))
                found.update(value for (value,) in rows if value is not None)
            return sorted(found)

        return Choices(
            models=distinct(runs.c.model),
            frameworks=distinct(runs.c.framework),
            engines=distinct(runs.c.engine),
            dtypes=distinct(runs.c.rollout_dtype, runs.c.trainer_dtype),
            causes=distinct(runs.c.cause),
            tags=distinct(run_tags.c.tag, where=seen_tags),
        )

    def _keys(self, order: Order) -> tuple[list[ColumnElement[Any]], bool]:
        """What is sorted by, and whether the largest comes first."""
        match order:
            case "activity":
                return [runs.c.activity], True
            case "worst":
                return [_RANK, _EXCESS, runs.c.number], True
            case "created":
                return [runs.c.created_at, runs.c.number], True
            case "name":
                collation = _BYTES.get(self._connection.dialect.name)
                return [runs.c.name if collation is None else runs.c.name.collate(collation)], False

    def _matching(self, statement: Select[Any], wanted: RunFilter) -> Select[Any]:
        return statement.where(*self._conditions(wanted))

    def _conditions(self, wanted: RunFilter) -> list[ColumnElement[bool]]:
        found = [reach.current().visible(runs.c.name)]
        found += [self._says(word) for word in (wanted.text or "").split()]
        found += [
            _same(column_, value)
            for column_, value in (
                (runs.c.model, wanted.model),
                (runs.c.framework, wanted.framework),
                (runs.c.cause, wanted.cause),
            )
            if value is not None
        ]
        if wanted.engine is not None:
            version = runs.c.engine.istartswith(f"{wanted.engine} ", autoescape=True)
            found.append(or_(_same(runs.c.engine, wanted.engine), version))
        if wanted.dtype is not None:
            sides = (runs.c.rollout_dtype, runs.c.trainer_dtype)
            found.append(or_(*(_same(side, wanted.dtype) for side in sides)))
        if wanted.states:
            dialect = self._connection.dialect
            found.append(or_(*(has_progress(one, self.now, dialect) for one in wanted.states)))
        if wanted.verdicts:
            found.append(runs.c.verdict.in_(wanted.verdicts))
        found += [_tagged(_same(run_tags.c.tag, tag)) for tag in wanted.tags]
        if wanted.since is not None:
            found.append(runs.c.updated_at >= wanted.since)
        if wanted.until is not None:
            found.append(runs.c.updated_at <= wanted.until)
        return found

    def _says(self, word: str) -> ColumnElement[bool]:
        return or_(
            runs.c.name.icontains(word, autoescape=True),
            runs.c.note.icontains(word, autoescape=True),
            _tagged(run_tags.c.tag.icontains(word, autoescape=True)),
            self._labelled(word),
        )

    def _labelled(self, word: str) -> ColumnElement[bool]:
        """Within the JSON object: its text in the database has escapes in place of letters."""
        postgresql = self._connection.dialect.name == "postgresql"
        function = func.json_each_text if postgresql else func.json_each
        pair = function(runs.c.labels).table_valued(column("key", String), column("value", String))
        within = or_(
            pair.c.key.icontains(word, autoescape=True),
            pair.c.value.icontains(word, autoescape=True),
        )
        return exists(select(literal(1)).select_from(pair).where(within).correlate(runs))


@dataclass(frozen=True, slots=True)
class Choices:
    """What the runs have, sorted, at most MOST_CHOICES of each column."""

    models: Sequence[str]
    frameworks: Sequence[str]
    engines: Sequence[str]
    dtypes: Sequence[str]
    causes: Sequence[str]
    tags: Sequence[str]


def _same(column_: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    same: ColumnElement[bool] = func.lower(column_) == func.lower(value)
    return same


def _tagged(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(
        select(literal(1))
        .select_from(run_tags)
        .where(run_tags.c.run_number == runs.c.number, condition)
        .correlate(runs)
    )


def _values(place: Place) -> list[Any]:
    return [
        datetime.fromisoformat(key) if kind is datetime else key
        for key, kind in zip(place.keys, _KINDS[place.order], strict=True)
    ]


def _beyond(
    keys: Sequence[ColumnElement[Any]], values: Sequence[Any], descending: bool
) -> ColumnElement[bool]:
    """Later in the order than `values`."""
    first, value = keys[0], values[0]
    further: ColumnElement[bool] = first < value if descending else first > value
    if len(keys) == 1:
        return further
    return or_(further, and_(first == value, _beyond(keys[1:], values[1:], descending)))
