"""Transactions: readers never wait for a writer, writers take turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from driftscope_service.store import database as database_module
from driftscope_service.store import migrate
from driftscope_service.store.database import Database
from driftscope_service.store.job_repository import JobRepository


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    migrate.upgrade(tmp_path / "test.db")
    database = Database(tmp_path / "test.db")
    yield database
    database.dispose()


def test_a_reader_sees_the_state_before_a_writer_commits(database: Database) -> None:
    with database.write() as writing:
        JobRepository(writing).add("paired", "m", {})
        with database.read() as reading:
            assert JobRepository(reading).page(10) == []
    with database.read() as reading:
        assert len(JobRepository(reading).page(10)) == 1


def test_writers_take_turns(database: Database) -> None:
    """Each reads, then writes: with a deferred BEGIN one of them would fail or lose."""

    def add_ten() -> None:
        for _ in range(10):
            with database.write() as connection:
                assert JobRepository(connection).oldest_queued() is None
                JobRepository(connection).add("paired", "m", {})
                claimed = JobRepository(connection).claim_next()
                assert claimed is not None

    threads = [threading.Thread(target=add_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        found = JobRepository(connection).page(100)
    assert len(found) == 40
    assert {job.state for job in found} == {"running"}


def test_a_lock_that_stays_is_an_error(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 20)
    impatient = Database(tmp_path / "test.db")
    with database.write(), pytest.raises(OperationalError, match="locked"):
        with impatient.write():
            pass
    impatient.dispose()


def test_references_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError):
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO reports (id, job_id, kind, model, summary, file, size_bytes, "
                "created_at) VALUES ('r', 'none', 'paired', 'm', '{}', 'f', 1, '2026-01-01')"
            )
