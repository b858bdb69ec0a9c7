"""The end of a job is recorded, even where the database is away for a while."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from driftscope_service.experiments.store import ReportRepository
from driftscope_service.jobs import run_job as run_job_module
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import CommitUnknown, Database
from driftscope_service.store.dialects import sqlite


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr(run_job_module, "RECORD_RETRY_S", 0.05)


def test_a_failure_is_recorded_when_the_lock_is_gone(
    impatient: None, running: Any, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    job_id = running.start("sleep")
    running.wait(job_id, "running")
    eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "sleep")
    running.client.post(f"/v1/jobs/{job_id}/cancel")
    with closing(sqlite3.connect(running.data_dir / "driftscope.db")) as lock:
        lock.execute("BEGIN IMMEDIATE")
        eventually(lambda: "could not be recorded" in caplog.text)
        lock.execute("ROLLBACK")
    assert running.wait(job_id)["state"] == "cancelled"


def test_a_report_that_cannot_be_recorded_leaves_no_files(running: Any, eventually: Any) -> None:
    with running.service.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE reports ADD COLUMN more INTEGER NOT NULL DEFAULT 0")
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON reports "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    job = running.wait(running.start("succeed"))
    assert (job["state"], job["error"]["error"]) == ("failed", "ServiceFailed")
    assert "no room" in job["error"]["message"]
    assert list((running.data_dir / "reports").iterdir()) == []


def test_a_report_is_recorded_when_the_lock_is_gone(
    impatient: None, running: Any, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    """The work is done: it is neither lost nor done again."""
    job_id = running.start("gate")
    eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "gate")
    with closing(sqlite3.connect(running.data_dir / "driftscope.db")) as lock:
        lock.execute("BEGIN IMMEDIATE")
        (running.data_dir / "jobs" / job_id / "attempt-1" / "go").touch()
        eventually(lambda: "its report could not be recorded" in caplog.text)
        lock.execute("ROLLBACK")
    job = running.wait(job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1)


def test_a_database_that_is_away_costs_an_attempt(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before there is a report, the attempt ends and another one follows."""
    asked = JobRepository.request_of
    failures = iter([OperationalError("SELECT", {}, Exception("server closed the connection"))])

    def once(self: JobRepository, job_id: str) -> Any:
        for failure in failures:
            raise failure
        return asked(self, job_id)

    monkeypatch.setattr(JobRepository, "request_of", once)
    job = running.wait(running.start("succeed"))
    assert job["state"] == "succeeded"
    assert job["attempts"][0]["reason"]["error"] == "DatabaseUnavailable"


def test_files_stay_where_the_commit_may_have_happened(
    running: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row may name them: the next try finds out that it does."""
    write, lost = Database.write, iter([True])

    @contextmanager
    def committed_unheard(self: Database) -> Iterator[Connection]:
        with write(self) as connection:
            yield connection
            added = connection.info.get("added", False)
        if added and next(lost, False):
            raise CommitUnknown("COMMIT", {}, Exception("server closed the connection"))

    add = ReportRepository.add

    def noted(self: ReportRepository, *arguments: Any, **named: Any) -> None:
        add(self, *arguments, **named)
        self._connection.info["added"] = True

    monkeypatch.setattr(run_job_module, "RECORD_RETRY_S", 0.05)
    monkeypatch.setattr(Database, "write", committed_unheard)
    monkeypatch.setattr(ReportRepository, "add", noted)
    job = running.wait(running.start("succeed"))
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1)
    assert running.client.get(job["links"]["report"]).status_code == 200
