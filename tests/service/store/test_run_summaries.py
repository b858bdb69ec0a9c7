"""What /metrics reads of runs: who is active, the highest step, totals over its steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, update

from driftscope_service.experiments.store import ReportFile, ReportRepository
from driftscope_service.jobs.claims import ClaimRepository, Owner
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.store import JobRepository, JobTimes
from driftscope_service.runs.store.runs import RunRepository, RunSummaries
from driftscope_service.runs.store.steps import NewStep, StepRepository
from driftscope_service.store.database import Database
from driftscope_service.store.storage_use import stored_bytes
from driftscope_service.store.tables import jobs, runs

PAST = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


def add_step(connection: Connection, run: str, step: int, tokens: int = 10, **series: Any) -> int:
    """Returns the number of the run."""
    repository = RunRepository(connection)
    found, _ = repository.put(run, {})
    analysis = f'{{"step":{step}}}'.encode()
    new = NewStep(step, "0" * 64, 100, 1, [], tokens, 2, {"model": "m"}, [], series, analysis)
    StepRepository(connection).add(found.number, new)
    repository.step_completed(found.number, new)
    return found.number


def idle(connection: Connection, run: str, since: datetime) -> None:
    connection.execute(update(runs).where(runs.c.name == run).values(updated_at=since))


def test_active_runs_are_the_latest_and_at_most_the_cap(connection: Connection) -> None:
    for run in ("a", "b", "c", "d"):
        add_step(connection, run, 0)
    idle(connection, "c", PAST)
    found = RunSummaries(connection).active(PAST + timedelta(hours=1), cap=2)
    assert [run.name for run in found.runs] == ["d", "b"]
    assert (found.active, found.idle) == (3, 1)


def test_without_runs_nothing_is_active(connection: Connection) -> None:
    found = RunSummaries(connection).active(PAST, cap=2)
    assert (found.runs, found.active, found.idle) == ([], 0, 0)


def test_the_last_step_is_the_highest_one(connection: Connection) -> None:
    one = add_step(connection, "a", 2**53 - 1)
    add_step(connection, "a", 4)
    other = add_step(connection, "b", 4)
    add_step(connection, "b", 7)
    found = RunSummaries(connection).last_steps([one, other])
    assert {number: last.step for number, last in found.items()} == {one: 2**53 - 1, other: 7}
    assert found[other].analysis == b'{"step":7}'
    assert found[other].metadata == {"model": "m"}


def totals(connection: Connection, name: str) -> tuple[int, int, int]:
    run = RunRepository(connection).get(name)
    assert run is not None
    return (run.compared_tokens, run.nonfinite_tokens, run.confident_disagreements)


def test_totals_count_every_step_once(connection: Connection) -> None:
    # A share is a count over tokens; it comes back as the count.
    add_step(connection, "a", 0, 3, nonfinite_tokens=2, confident_disagreement_share=1 / 3)
    add_step(connection, "a", 1, 7, nonfinite_tokens=0, confident_disagreement_share=5 / 7)
    add_step(connection, "b", 0, 5, nonfinite_tokens=None)
    add_step(connection, "a", 2, 2**40, nonfinite_tokens=1, confident_disagreement_share=0.0)
    RunRepository(connection).put("empty", {})
    assert totals(connection, "a") == (2**40 + 10, 3, 6)
    assert totals(connection, "b") == (5, 0, 0)
    assert totals(connection, "empty") == (0, 0, 0)


def test_job_times(connection: Connection) -> None:
    repository, times = JobRepository(connection), JobTimes(connection)
    assert times.oldest_queued_at() is None
    assert times.last_finished() == []
    first, second = repository.add("paired", "m", {}), repository.add("paired", "m", {})
    assert times.oldest_queued_at() == first.created_at
    claims = ClaimRepository(connection)
    claim = claims.claim_next(Owner("instance_a", "here", "local"))
    assert claim is not None
    assert times.oldest_queued_at() == second.created_at
    claims.succeed(claim.fence)
    started = PAST
    ended = {"started_at": started, "finished_at": started + timedelta(seconds=90)}
    connection.execute(update(jobs).where(jobs.c.id == first.id).values(**ended))
    repository.request_cancel(second.id)  # it never started, and took no time
    repository.add_succeeded("kernels", None, {})  # it ran elsewhere, and took none here
    [found] = times.last_finished()
    assert (found.kind, found.state, found.seconds) == ("paired", JobState.SUCCEEDED, 90.0)


def test_stored_bytes(connection: Connection) -> None:
    empty = stored_bytes(connection)
    assert (empty["tokens"], empty["reports"]) == (0, 0)
    assert empty["database"] > 0
    add_step(connection, "a", 0)
    job = JobRepository(connection).add("paired", "m", {})
    ReportRepository(connection).add(
        ReportFile("report_1", "reports/1", 7), job_id=job.id, kind="paired", model="m", summary={}
    )
    found = stored_bytes(connection)
    assert (found["tokens"], found["reports"]) == (100, 7)
