"""Leases that nobody renews are seen, whatever the clocks do; those that are renewed are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.jobs import claims as claims_module
from driftscope_service.jobs import lease_keeper
from driftscope_service.jobs.claims import LEASE_S, Fence, HeldLease
from driftscope_service.jobs.lease_keeper import LEAST_UNCHANGED_S, RENEW_S, LeaseWatch
from driftscope_service.jobs.store import JobRepository

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FENCE = Fence("job_1", 1, "instance_a")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lease(expires_at: datetime, expired: bool) -> HeldLease:
    return HeldLease(FENCE, "host", expires_at, expired)


@pytest.mark.parametrize(("expired", "least"), [(True, LEAST_UNCHANGED_S), (False, LEASE_S)])
def test_what_stands_still_is_abandoned(expired: bool, least: float) -> None:
    """Where the clock was set back it never expires by itself."""
    clock = Clock()
    watch, held = LeaseWatch(clock), [lease(NOW, expired)]
    assert list(watch.abandoned(held)) == []
    clock.now = least - 0.1
    assert list(watch.abandoned(held)) == []
    clock.now = least
    assert list(watch.abandoned(held)) == held


def test_that_it_has_expired_meanwhile_is_no_renewal() -> None:
    clock = Clock()
    watch = LeaseWatch(clock)
    list(watch.abandoned([lease(NOW, False)]))
    clock.now = LEASE_S
    assert list(watch.abandoned([lease(NOW, True)])) == [lease(NOW, True)]


@given(st.lists(st.integers(-(10**6), 10**6), max_size=20))
def test_what_is_renewed_is_kept_whatever_the_clock_does(steps: list[int]) -> None:
    """Before every look the clock of the database is set by one of `steps`, in seconds."""
    clock, database = Clock(), NOW
    watch = LeaseWatch(clock)
    renewed = database + timedelta(seconds=LEASE_S)
    for step in steps:
        clock.now += RENEW_S
        database += timedelta(seconds=RENEW_S + step)
        # The renewal of this round may come just after the look.
        assert list(watch.abandoned([lease(renewed, renewed <= database)])) == []
        renewed = database + timedelta(seconds=LEASE_S)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals every 50 ms, and leases as short as one of them but for the monotonic part."""
    monkeypatch.setattr(lease_keeper, "TICK_S", 0.02)
    monkeypatch.setattr(lease_keeper, "RENEW_S", 0.05)


def test_a_clock_that_is_set_takes_no_job_from_its_owner(
    quick: None,
    running: Any,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    renewals = threading.Semaphore(0)
    renew = running.service.executor.leases.renew

    def counted() -> None:
        renew()
        renewals.release()

    monkeypatch.setattr(running.service.executor.leases, "renew", counted)
    job_id = running.start("sleep")
    running.wait(job_id, "running")
    for days in (365, -365):
        there = datetime.now(UTC) + timedelta(days=days)
        monkeypatch.setattr(claims_module, "database_now", lambda _, there=there: there)
        for _ in range(4):
            assert renewals.acquire(timeout=30)
        job = running.job(job_id)
        assert (job["state"], len(job["attempts"])) == ("running", 1)


def test_all_attempts_together_have_a_limit(quick: None, run_service: Any) -> None:
    with run_service(job_total_time_limit_seconds=0.5) as running:
        job = running.wait(running.start("sleep"))
        assert (job["state"], job["error"]["error"]) == ("failed", "JobTimedOut")
        assert "all attempts of the job" in job["error"]["message"]
        assert "DRIFTSCOPE_JOB_TOTAL_TIME_LIMIT_SECONDS" in job["error"]["remedy"]


def test_a_cancel_that_came_to_another_instance_is_obeyed(quick: None, running: Any) -> None:
    job_id = running.start("sleep")
    running.wait(job_id, "running")
    with running.service.database.write() as connection:
        JobRepository(connection).request_cancel(job_id)
    assert running.wait(job_id)["state"] == "cancelled"
