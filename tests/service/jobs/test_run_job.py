"""The end of a job is recorded, even where the database is away for a while."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from driftscope_service.jobs import run_job as run_job_module
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
    eventually(lambda: running.job(job_id)["progress"]["stage"] == "sleep")
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
