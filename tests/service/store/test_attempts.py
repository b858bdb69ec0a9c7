"""Attempts of a run, against a plain model: which steps the series shows, whatever arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from driftscope_service.runs.store.attempts import AttemptRepository
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import (
    NewStep,
    StepRepository,
    StepVerdict,
    metric_points,
    neighbours,
    token_place,
    verdict_points,
)
from driftscope_service.runs.store.uploads import Shard, ShardRepository
from driftscope_service.store import migrate
from driftscope_service.store.database import Database

MOMENT = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


def new_step(step: int, value: float = 0.5, **fields: Any) -> NewStep:
    given = {
        "content_sha256": "0" * 64,
        "size_bytes": 100,
        "shards": 1,
        "raw_files": [],
        "tokens": 10,
        "sequences": 2,
        "metadata": {},
        "crossed": [],
        "series": {"kl_k3": value},
        "analysis": b'{"comparison":{}}',
        **fields,
    }
    return NewStep(step, **given)


def add(connection: Connection, number: int, attempt: int, step: int, **fields: Any) -> None:
    new = new_step(step, float(attempt), **fields)
    placed = StepRepository(connection).add(number, new, attempt=attempt)
    RunRepository(connection).step_completed(number, new, placed)


def reopen(connection: Connection, resumed_from: int | None, id: str | None = None) -> int:
    runs = RunRepository(connection)
    return runs.open_attempt(
        run(connection), id=id, resumed_from=resumed_from, opened_by="step", started_at=MOMENT
    )


def run(connection: Connection) -> Run:
    found = RunRepository(connection).get("r")
    assert found is not None
    return found


def series(connection: Connection, number: int) -> dict[int, int]:
    """Attempt by step."""
    points = StepRepository(connection).points(number, 1000)
    return {point.step: point.attempt for point in points}


def test_a_run_has_a_first_attempt(connection: Connection) -> None:
    made, _ = RunRepository(connection).put("r", {})
    (first,) = AttemptRepository(connection).of_run(made.number)
    assert (first.attempt, first.id, first.resumed_from) == (1, None, None)
    assert (first.opened_by, first.refused_steps, first.last_refusal) == ("step", 0, None)
    assert (made.attempt, made.resumed, made.complete_steps) == (1, False, 0)


def test_the_first_that_a_client_opens_is_the_first_of_an_empty_run(connection: Connection) -> None:
    number = RunRepository(connection).put("r", {})[0].number
    assert reopen(connection, None, "a") == 1
    (first,) = AttemptRepository(connection).of_run(number)
    assert (first.id, first.opened_by, first.started_at) == ("a", "client", MOMENT)
    shards = ShardRepository(connection)
    shards.add(number, Shard(1, 0, 2, "0" * 64, 10, 100, "json", "1-0.raw"))
    assert reopen(connection, None, "b") == 2  # something has arrived: the first was another one


def test_steps_beyond_the_checkpoint_leave_the_series_at_once(connection: Connection) -> None:
    number = RunRepository(connection).put("r", {})[0].number
    told = StepVerdict("bug_like", 40.0, "temperature", 0.9)
    for step in range(1, 46):
        add(connection, number, 1, step, verdict=told if step > 40 else None, crossed=["kl_k3"])
    assert (run(connection).verdict, run(connection).crossed) == ("bug_like", 1)
    before = run(connection)
    assert reopen(connection, 40) == 2
    now = run(connection)
    assert (now.complete_steps, now.last_step, now.attempt, now.resumed) == (40, 40, 2, True)
    assert (now.received_steps, now.compared_tokens) == (45, 450)
    assert now.revision > before.revision and (now.verdict, now.cause) == (None, None)
    add(connection, number, 2, 41, verdict=told)
    now = run(connection)
    assert (now.complete_steps, now.last_step, now.received_steps) == (41, 41, 46)
    assert (now.verdict, now.excess, now.cause, now.confidence, now.crossed) == (
        *("bug_like", 40.0, "temperature", 0.9),
        0,
    )


def test_every_way_of_reading_shows_the_series_or_one_attempt(connection: Connection) -> None:
    number = RunRepository(connection).put("r", {})[0].number
    for step in range(1, 6):
        add(connection, number, 1, step)
    reopen(connection, 3)
    add(connection, number, 2, 4)
    steps = StepRepository(connection)
    assert series(connection, number) == {1: 1, 2: 1, 3: 1, 4: 2}
    assert [point.step for point in steps.points(number, 9, attempt=1)] == [1, 2, 3, 4, 5]
    assert [point.step for point in steps.latest_points(number, 2)] == [3, 4]
    values = [point.value for point in metric_points(connection, number, "kl_k3")]
    assert values == [1.0, 1.0, 1.0, 2.0]
    older = metric_points(connection, number, "kl_k3", attempt=1, first=4)
    assert [point.value for point in older] == [1.0, 1.0]
    assert [one.attempt for one in verdict_points(connection, number, 9)] == [1, 1, 1, 2]
    beside = neighbours(connection, number, 4)
    assert (beside.before, beside.after) == (3, None)
    assert neighbours(connection, number, 4, attempt=1).after == 5
    of_series, older_step = steps.get("r", 4), steps.get("r", 4, attempt=1)
    assert of_series is not None and older_step is not None
    assert (of_series.attempt, of_series.superseded_by) == (2, None)
    assert (older_step.attempt, older_step.superseded_by) == (1, 2)
    # It is not in the series any more, and is found where nothing has its place.
    gone = steps.get("r", 5)
    assert gone is not None and (gone.attempt, gone.superseded_by) == (1, 2)
    assert steps.get("r", 5, attempt=2) is None
    first, second = (token_place(connection, "r", 4, attempt=one) for one in (1, 2))
    assert first is not None and second is not None
    assert first.number < second.number and token_place(connection, "r", 4) == second
    assert AttemptRepository(connection).resumed_at(number) == [4]
    kept = {(one.step, one.superseded) for one in steps.kept()}
    assert kept >= {(4, True), (4, False), (5, True)}


def test_what_is_stored_of_each_attempt(connection: Connection) -> None:
    number = RunRepository(connection).put("r", {})[0].number
    for step in range(1, 6):
        add(connection, number, 1, step)
    reopen(connection, 3)
    stored = AttemptRepository(connection).steps_of(number)
    assert set(stored) == {1}
    assert (stored[1].steps, stored[1].first_step, stored[1].last_step) == (5, 1, 5)
    assert (stored[1].current_steps, stored[1].first_current) == (3, 1)


def test_refused_steps_are_counted_where_they_belong(connection: Connection) -> None:
    runs = RunRepository(connection)
    number = runs.put("r", {})[0].number
    add(connection, number, 1, 1)
    reopen(connection, None)
    for step in (4, 5):
        runs.step_refused(run(connection), 2, step, problem="malformed-step", reason="why")
    first, second = AttemptRepository(connection).of_run(number)
    assert (first.refused_steps, first.last_refusal, second.refused_steps) == (0, None, 2)
    assert second.last_refusal is not None
    assert (second.last_refusal["step"], second.last_refusal["reason"]) == (5, "why")
    assert run(connection).refused_steps == 2


def test_shards_of_the_same_step_in_two_attempts(connection: Connection) -> None:
    number = RunRepository(connection).put("r", {})[0].number
    shards = ShardRepository(connection)
    for attempt in (1, 2):
        name = f"{attempt}.raw"
        shards.add(number, Shard(1, 0, 2, "0" * 64, 10, 100, "json", name, attempt))
    assert [one.file for one in shards.of_step(number, 1, attempt=2)] == ["2.raw"]
    assert sorted(shards.attempts_with(number, 1)) == [1, 2]
    shards.completed(number, 1, attempt=2)
    assert shards.files() == ["1.raw"]
    StepRepository(connection).add(number, new_step(1), attempt=2)
    # Only the open one is forgotten: the other attempt's is the receipt of a complete step.
    assert shards.abandon(datetime.now(UTC)) == ["1.raw"]


@dataclass
class Model:
    """The rule in plain words, over everything that ever arrived."""

    resumed_from: list[int] = field(default_factory=lambda: [-1])  # of attempt 1, 2, …
    stored: set[tuple[int, int]] = field(default_factory=set)  # (attempt, step)

    def superseded_by(self, attempt: int, step: int) -> int | None:
        later = range(attempt + 1, len(self.resumed_from) + 1)
        return next(
            (k for k in later if self.resumed_from[k - 1] < step or (k, step) in self.stored),
            None,
        )

    @property
    def series(self) -> dict[int, int]:
        return {
            step: attempt
            for attempt, step in self.stored
            if self.superseded_by(attempt, step) is None
        }


@pytest.fixture(scope="module")
def one_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path: Path = tmp_path_factory.mktemp("attempts") / "test.db"
    migrate.upgrade(path)
    database = Database(path)
    yield database
    database.dispose()


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.none() | st.integers(0, 8), st.just(0)),
        # `which`: of the attempts that there are, so that late steps of old ones arrive too.
        st.tuples(st.just("step"), st.integers(0, 8), st.integers(0, 5)),
    ),
    max_size=40,
)


class _Rollback(Exception):
    pass


@settings(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_the_series_is_that_of_the_model(
    one_database: Database, events: list[tuple[str, int | None, int]]
) -> None:
    with pytest.raises(_Rollback), one_database.write() as connection:
        number = RunRepository(connection).put("r", {})[0].number
        model = Model()
        for kind, value, which in events:
            if kind == "open":
                opened = reopen(connection, value)
                model.resumed_from.append(-1 if value is None else value)
                assert opened == len(model.resumed_from)
            else:
                assert value is not None
                attempt = 1 + which % len(model.resumed_from)
                if (attempt, value) in model.stored:
                    continue
                add(connection, number, attempt, value)
                model.stored.add((attempt, value))
            now = run(connection)
            assert series(connection, number) == model.series
            assert now.complete_steps == len(model.series)
            assert now.last_step == max(model.series, default=None)
            assert now.received_steps == len(model.stored)
            for one, step in model.stored:
                there = StepRepository(connection).get("r", step, attempt=one)
                assert there is not None
                assert there.superseded_by == model.superseded_by(one, step)
        raise _Rollback
