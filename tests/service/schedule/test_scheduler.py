"""Due moments become jobs: once each, whatever the service has been through."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.schedule.scheduler import Scheduler
from driftscope_service.schedule.store import MISSED_AFTER_S, Missed, Schedule, ScheduleRepository
from driftscope_service.store.database import Database

DUE = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
DAY = timedelta(days=1)


class Announced:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def announced() -> Announced:
    return Announced()


@pytest.fixture
def scheduler(database: Database, announced: Announced) -> Scheduler:
    return Scheduler(database, 2, announced)


def put(database: Database, name: str = "night", missed: Missed = Missed.ONCE, **more: Any) -> None:
    with database.write() as connection:
        ScheduleRepository(connection).put(
            name,
            **{
                "cron": "30 3 * * *",
                "kind": "nightly",
                "request": {"kind": "nightly", "request": {}},
                "missed": missed,
                "next_at": DUE,
                **more,
            },
        )


def schedule(database: Database, name: str = "night") -> Schedule:
    with database.read() as connection:
        found = ScheduleRepository(connection).get(name)
    assert found is not None
    return found


def jobs(database: Database) -> list[Job]:
    with database.read() as connection:
        return JobRepository(connection).page(100)


def test_nothing_is_due_before_its_moment(database: Database, scheduler: Scheduler) -> None:
    put(database)
    assert scheduler.tick(DUE - timedelta(seconds=1)) == 0
    assert jobs(database) == []


def test_a_moment_is_fired_once(
    database: Database, scheduler: Scheduler, announced: Announced
) -> None:
    put(database)
    assert [scheduler.tick(DUE + timedelta(seconds=s)) for s in (0, 1, 60)] == [1, 0, 0]
    (job,) = jobs(database)
    assert (job.kind, job.state) == ("nightly", JobState.QUEUED)
    after = schedule(database)
    assert (after.last_at, after.next_at, after.last_job_id) == (DUE, DUE + DAY, job.id)
    assert announced.times == 1


def test_two_schedulers_fire_it_once(database: Database) -> None:
    put(database)
    counts: list[int] = []

    def tick() -> None:
        counts.append(Scheduler(database, 100, lambda: None).tick(DUE))

    threads = [threading.Thread(target=tick) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 0, 0, 0, 0, 1]
    assert len(jobs(database)) == 1


def test_missed_moments_are_made_up_for_once(database: Database, scheduler: Scheduler) -> None:
    put(database)
    late = DUE + 5 * DAY + timedelta(hours=1)
    assert scheduler.tick(late) == 1
    assert scheduler.tick(late + timedelta(minutes=1)) == 0
    assert schedule(database).next_at == DUE + 6 * DAY


def test_missed_moments_are_skipped_where_that_is_wanted(
    database: Database, scheduler: Scheduler
) -> None:
    put(database, missed=Missed.SKIP)
    assert scheduler.tick(DUE + timedelta(hours=1)) == 0
    after = schedule(database)
    assert after.next_at == DUE + DAY and "skipped: missed" in str(after.note)
    # The next one is on time, give or take the tick.
    assert scheduler.tick(DUE + DAY + timedelta(seconds=MISSED_AFTER_S - 1)) == 1


def test_a_night_that_still_runs_is_not_started_twice(
    database: Database, scheduler: Scheduler
) -> None:
    put(database)
    scheduler.tick(DUE)
    assert scheduler.tick(DUE + DAY) == 0
    assert "has not ended" in str(schedule(database).note)
    with database.write() as connection:
        JobRepository(connection).request_cancel(jobs(database)[0].id)
    assert scheduler.tick(DUE + 2 * DAY) == 1


def test_a_full_queue_is_respected(database: Database, scheduler: Scheduler) -> None:
    for name in ("a", "b", "c"):
        put(database, name)
    assert scheduler.tick(DUE) == 2
    assert schedule(database, "c").note == "skipped: the queue is full"


def test_a_failure_between_queueing_and_moving_on_leaves_neither(
    database: Database, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash there would: the moment is still due, and no job exists."""
    put(database)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(ScheduleRepository, "dealt_with", fail)
        with pytest.raises(RuntimeError):
            scheduler.tick(DUE)
    assert jobs(database) == []
    assert scheduler.tick(DUE) == 1


def test_the_thread_survives_an_error_and_stops(
    database: Database, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticked = threading.Event()

    def fail(_: datetime) -> int:
        ticked.set()
        raise RuntimeError("planted")

    monkeypatch.setattr(scheduler, "tick", fail)
    scheduler.start()
    assert ticked.wait(10) and scheduler.alive
    scheduler.stop()
    scheduler.stop()
    assert not scheduler.alive
