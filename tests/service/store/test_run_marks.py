"""What a list says of runs beside their rows, and what a deletion leaves, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, insert, select, update

from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.baseline import marks_of
from driftscope_service.runs.store.attempts import AttemptRepository
from driftscope_service.runs.store.marks import RunMarks
from driftscope_service.runs.store.recent import recent_values
from driftscope_service.runs.store.removal import remove_run, remove_step
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.search import RunFilter, RunSearch
from driftscope_service.runs.store.steps import NewStep, StepRepository, StepVerdict
from driftscope_service.runs.store.uploads import Shard, ShardRepository
from driftscope_service.store.database import Database
from driftscope_service.store.tables import attempts, run_tags, runs, shards, steps


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


def add(
    connection: Connection,
    run: str,
    step: int,
    value: float | None = None,
    *,
    model: str | None = "m",
    verdict: StepVerdict | None = None,
) -> Run:
    """A complete step with one raw file, named by run and step."""
    repository = RunRepository(connection)
    found = repository.get(run)
    if found is None:
        found, _ = repository.put(run, {"model": model})
    new = NewStep(
        step=step,
        content_sha256="0" * 64,
        size_bytes=100,
        shards=1,
        raw_files=[{"file": f"{run}-{step}.raw", "format": "safetensors"}],
        tokens=10,
        sequences=2,
        metadata={},
        crossed=[],
        series={"abs_diff_mean": value},
        analysis=b"{}",
        verdict=verdict,
    )
    StepRepository(connection).add(found.number, new)
    repository.step_completed(found.number, new)
    return required(connection, run)


def required(connection: Connection, name: str) -> Run:
    found = RunRepository(connection).get(name)
    assert found is not None
    return found


def test_recent_values_are_the_highest_steps_ascending(connection: Connection) -> None:
    for step, value in ((3, 0.3), (1, 0.1), (10, 1.0), (2, None)):
        one = add(connection, "a", step, value)
    other = add(connection, "b", 0, 0.25)
    empty, _ = RunRepository(connection).put("empty", {})
    numbers = [one.number, other.number, empty.number]
    found = recent_values(connection, numbers, "abs_diff_mean", 3)
    assert found[one.number] == [None, 0.3, 1.0]
    assert found[other.number] == [0.25] and found.get(empty.number, []) == []
    assert recent_values(connection, numbers, "kl_k3", 3)[other.number] == [None]
    assert recent_values(connection, [], "abs_diff_mean", 3) == {}
    connection.execute(update(steps).where(steps.c.step == 10).values(superseded_by=2))
    assert recent_values(connection, numbers, "abs_diff_mean", 2)[one.number] == [None, 0.3]


def test_the_baseline_of_each_model(connection: Connection) -> None:
    marks = RunMarks(connection)
    found = {
        name: add(connection, name, 1, value, model=model)
        for name, value, model in (
            ("first", 0.1, "m"),
            ("second", 0.2, "m"),
            ("third", 0.6, "m"),
            ("none", None, "m"),
            ("other", 0.5, "n"),
            ("nameless", 0.5, None),
        )
    }
    for name in ("second", "first", "other"):
        marks.pin(found[name].number, True)
    found["other"] = add(connection, "other", 2, 0.7)
    told = {
        name: marks_of(connection, list(found.values()))[run.number].against
        for name, run in found.items()
    }
    third = told["third"]
    assert third is not None and third.baseline == "first"
    assert third.times == pytest.approx(6.0) and third.words == "mean |Δ| 6.00 times"
    # The baseline itself, runs of a model without one, runs without a model.
    assert told["first"] is None and told["other"] is None and told["nameless"] is None
    assert told["none"] is not None and told["none"].times is None
    assert "cannot be compared" in told["none"].words
    marks.pin(found["first"].number, False)
    again = marks_of(connection, [found["third"]])[found["third"].number].against
    assert again is not None and again.baseline == "second"


def test_a_removed_run_leaves_nothing_and_names_its_files(connection: Connection) -> None:
    for name in ("gone", "kept"):
        for step in (1, 2):
            run = add(connection, name, step, 0.1)
        RunMarks(connection).tag(run.number, ["t"])
        shard = Shard(3, 0, 2, "0" * 64, 5, 50, "safetensors", f"{name}-shard.raw")
        ShardRepository(connection).add(run.number, shard)
    removed = remove_run(connection, "gone")
    assert removed is not None and removed.steps == 2 and removed.freed_bytes == 250
    assert set(removed.files) == {"gone-1.raw", "gone-2.raw", "gone-shard.raw"}
    kept = required(connection, "kept").number
    for table in (steps, shards, attempts, run_tags):
        numbers = connection.execute(select(table.c.run_number).distinct()).scalars().all()
        assert numbers == [kept], table.name
    assert connection.execute(select(runs.c.name)).scalars().all() == ["kept"]
    assert remove_run(connection, "gone") is None


def test_a_removed_step_of_one_attempt_leaves_the_other(connection: Connection) -> None:
    run = add(connection, "r", 1, 0.1)
    add(connection, "r", 2, 0.2)
    AttemptRepository(connection).add(run.number, 2, resumed_from=1)
    old = connection.execute(select(steps).where(steps.c.step == 2)).one()._mapping
    assert old["superseded_by"] == 2
    raw = [{"file": "again.raw", "format": "safetensors"}]
    new = {**old, "attempt": 2, "superseded_by": None, "raw_files": raw}
    new["series"] = {"abs_diff_mean": 0.9}
    del new["number"]
    connection.execute(insert(steps).values(new))
    revision = required(connection, "r").revision
    removed = remove_step(connection, "r", 2)
    assert removed is not None and removed.files == ("again.raw",)
    left = required(connection, "r")
    assert (left.complete_steps, left.last_step) == (1, 1) and left.revision > revision
    assert recent_values(connection, [run.number], "abs_diff_mean", 9)[run.number] == [0.1]
    # What the older attempt has of it is still there, and can be named.
    older = remove_step(connection, "r", 2, 1)
    assert older is not None and older.files == ("r-2.raw",)
    assert remove_step(connection, "r", 2, 1) is None
    assert remove_step(connection, "r", 7) is None and remove_step(connection, "x", 1) is None


def test_a_run_is_found_by_the_cause_that_only_its_steps_together_show(
    connection: Connection,
) -> None:
    """Weights that are never synced: clean at first, then further away with every step."""
    for step in range(12):
        excess = 1.0 + 1.2 * step
        verdict = "at_floor" if excess < 2.0 else "above_floor"
        cause = None if verdict == "at_floor" else "unexplained"
        add(connection, "r", step, 0.1, verdict=StepVerdict(verdict, excess, cause, 0.2, 0.5))
        settle_answer(connection, "r")
    run = required(connection, "r")
    assert (
        run.cause == "stale_engine_weights" and run.confidence is not None and run.confidence > 0.5
    )
    found = RunSearch(connection).page(RunFilter(cause="stale_engine_weights"), "activity", 5)
    assert [one.name for one in found] == ["r"]
    # A last step that rounding explains has nothing to explain.
    add(connection, "r", 12, 0.1, verdict=StepVerdict("at_floor", 1.0, None, None, 0.5))
    settle_answer(connection, "r")
    assert required(connection, "r").cause is None
