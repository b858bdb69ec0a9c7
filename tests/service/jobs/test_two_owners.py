"""Two instances and one job: it has effects once, whoever believes to be its owner."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import URL

from driftscope_service.jobs import lease_keeper
from driftscope_service.jobs.claims import ClaimRepository, Owner
from driftscope_service.jobs.executor import JobExecutor
from driftscope_service.jobs.job import AttemptOutcome, JobError, owner_lost
from driftscope_service.jobs.run_job import JobCounts

ProcessesOf = Callable[[str], list[int]]
Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, run_service: Any) -> Iterator[Any]:
    given = {}
    if request.param == "postgresql":
        url: URL = request.getfixturevalue("postgresql_url")
        given["database_url"] = url.render_as_string(hide_password=False)
    with run_service(**given) as running:
        yield running


@contextmanager
def another_instance(running: Any) -> Iterator[JobExecutor]:
    """On another host, as it says: it leaves our processes alone."""
    tools = replace(running.service.executor.tools, stopping=threading.Event(), counts=JobCounts())
    other = JobExecutor(tools, Owner("instance_other", "elsewhere", "local"), 1)
    try:
        yield other
    finally:
        other.stop()


def take_over(running: Any, other: JobExecutor) -> None:
    """As after a time without renewals."""
    with running.service.database.read() as connection:
        (lease,) = ClaimRepository(connection).held()
    lost = owner_lost(str(lease.fence.owner), lease.host)
    other.leases._take_over(lease, JobError.of(lost), AttemptOutcome.LOST)
    other.start()


def outcomes(running: Any, job_id: str) -> list[str | None]:
    return [attempt["outcome"] for attempt in running.job(job_id)["attempts"]]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["stale_first", "stale_last"])
def test_the_report_of_a_stale_owner_is_discarded(
    shared: Any,
    order: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = shared
    # It stands still, as a machine that swaps does, and hears nothing.
    monkeypatch.setattr(running.service.executor.leases, "tick", lambda: None)
    job_id = running.start("gate")
    folder = running.data_dir / "jobs" / job_id
    # Nothing is left to be told that could tell it of the loss.
    eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "gate")
    with another_instance(running) as other:
        take_over(running, other)
        eventually(lambda: (folder / "attempt-2" / "request.json").exists())
        for attempt in order:
            (folder / f"attempt-{attempt}" / "go").touch()
            if attempt == 1:
                eventually(lambda: "its report is discarded" in caplog.text)
            else:
                assert running.wait(job_id)["state"] == "succeeded"
        assert outcomes(running, job_id) == ["lost", "succeeded"]
        assert other.counts.expired == 1 and other.counts.retries["OwnerLost"] == 1
    listed = running.client.get("/v1/reports").json()["reports"]
    assert len(listed) == 1
    kept = [path.name for path in (running.data_dir / "reports").iterdir()]
    assert kept == [listed[0]["id"]]
    assert running.client.get(running.job(job_id)["links"]["report"]).status_code == 200


def test_an_owner_that_hears_of_it_stops_its_probe(
    running: Any,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    processes_of: ProcessesOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job_id = running.start("sleep")
    eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "sleep")
    (first,) = processes_of(job_id)
    with another_instance(running) as other:
        with monkeypatch.context() as standing_still:
            standing_still.setattr(running.service.executor.leases, "tick", lambda: None)
            take_over(running, other)
            eventually(lambda: outcomes(running, job_id) == ["lost", None])
        monkeypatch.setattr(lease_keeper, "TICK_S", 0.02)
        monkeypatch.setattr(lease_keeper, "RENEW_S", 0.05)
        eventually(lambda: first not in processes_of(job_id))
        eventually(lambda: "no longer ours" in caplog.text)
        # The slot of the stale owner is free again.
        assert running.finished_report()
        with running.service.database.read() as connection:
            owners = [lease.fence.owner for lease in ClaimRepository(connection).held()]
        assert owners == ["instance_other"]
