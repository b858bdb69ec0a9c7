"""Runs, steps and shards in the database: what the routes and the token keeper rely on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository
from driftscope_service.runs.store.uploads import Shard, ShardRepository
from driftscope_service.store.database import Database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


def new_step(step: int, **fields: Any) -> NewStep:
    given = {
        "step": step,
        "content_sha256": "0" * 64,
        "size_bytes": 100,
        "shards": 1,
        "raw_files": [{"file": f"{step}.raw", "format": "safetensors"}],
        "tokens": 10,
        "sequences": 2,
        "metadata": {"model": "é"},
        "crossed": [],
        "series": {"kl_k3": 0.5, "lag_mean": None},
        "analysis": b'{"comparison":{}}',
        **fields,
    }
    return NewStep(**given)


def test_a_step_is_read_as_it_was_added(connection: Connection) -> None:
    runs, steps = RunRepository(connection), StepRepository(connection)
    run, new = runs.put("r", {"model": "m"})
    assert new
    steps.add(run.number, new_step(2**53 - 1))
    runs.step_completed(run.number, new_step(2**53 - 1))
    stored = steps.get("r", 2**53 - 1)
    assert stored is not None
    assert (stored.run, stored.analysis) == ("r", b'{"comparison":{}}')
    assert (stored.metadata, stored.kept_bytes) == ({"model": "é"}, 100)
    (point,) = steps.points(run.number, 10)
    assert point.series == {"kl_k3": 0.5, "lag_mean": None}
    assert steps.get("r", 1) is None and steps.get("other", 2**53 - 1) is None


def test_a_step_exists_once_per_run(connection: Connection) -> None:
    runs, steps = RunRepository(connection), StepRepository(connection)
    for name in ("a", "b"):
        steps.add(runs.put(name, {})[0].number, new_step(1))
    with pytest.raises(IntegrityError):
        steps.add(runs.put("a", {})[0].number, new_step(1, content_sha256="1" * 64))


def test_the_latest_points_ascend(connection: Connection) -> None:
    runs, steps = RunRepository(connection), StepRepository(connection)
    run, _ = runs.put("r", {})
    for step in (5, 1, 9, 3):
        steps.add(run.number, new_step(step))
    assert [point.step for point in steps.latest_points(run.number, 2)] == [5, 9]
    assert [point.step for point in steps.points(run.number, 2)] == [1, 3]
    assert [point.step for point in steps.points(run.number, 9, after=3)] == [5, 9]


def test_tokens_go_from_raw_to_parquet_to_nothing(connection: Connection) -> None:
    runs, steps = RunRepository(connection), StepRepository(connection)
    steps.add(runs.put("r", {})[0].number, new_step(1, crossed=["kl_k3"]))
    (tokens,) = steps.kept()
    assert (tokens.files, tokens.crossed) == (["1.raw"], True)
    steps.converted(tokens.number, "1.parquet", 60)
    (tokens,) = steps.kept()
    assert (tokens.files, tokens.raw_files, tokens.kept_bytes) == (["1.parquet"], None, 60)
    steps.dropped(tokens.number)
    assert steps.kept() == []


def test_the_highest_step_and_the_activity_of_a_run(connection: Connection) -> None:
    runs = RunRepository(connection)
    first, _ = runs.put("a", {})
    runs.put("b", {})
    for step in (7, 3):
        StepRepository(connection).add(first.number, new_step(step))
        runs.step_completed(first.number, new_step(step))
    run = runs.get("a")
    assert run is not None
    assert (run.complete_steps, run.last_step) == (2, 7)
    assert [run.name for run in runs.page(5)] == ["a", "b"]
    assert [run.name for run in runs.page(5, before=run.activity)] == ["b"]


def shard(step: int, number: int) -> Shard:
    return Shard(step, number, 2, "0" * 64, 10, 100, "safetensors", f"{step}-{number}.raw")


def test_only_open_steps_without_news_are_abandoned(connection: Connection) -> None:
    runs, shards = RunRepository(connection), ShardRepository(connection)
    run, _ = runs.put("r", {})
    for step in (1, 2, 3):
        shards.add(run.number, shard(step, 0))
    StepRepository(connection).add(run.number, new_step(2))
    shards.completed(run.number, 2)
    moment = datetime.now(UTC)
    shards.add(run.number, shard(3, 1))
    assert sorted(shards.files()) == ["1-0.raw", "3-0.raw", "3-1.raw"]
    assert shards.abandon(moment - timedelta(hours=1)) == []
    assert shards.abandon(moment) == ["1-0.raw"]
    assert [one.shard for one in shards.of_step(run.number, 3)] == [0, 1]
    assert [one.file for one in shards.of_step(run.number, 2)] == [None]
