"""Transactions: readers never wait for a writer, writers take turns."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError, OperationalError

from driftscope_service.jobs.claims import ClaimRepository, Owner
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import CommitUnknown, Database, DatabaseAddress
from driftscope_service.store.dialects import postgresql, sqlite


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
                claims = ClaimRepository(connection)
                assert not claims.anything_due()
                JobRepository(connection).add("paired", "m", {})
                assert claims.claim_next(Owner("instance_a", "here", "local")) is not None

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
    address: DatabaseAddress, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr(postgresql, "LOCK_TIMEOUT_MS", 20)
    impatient = Database(address)
    with database.write(), pytest.raises(OperationalError, match="locked|lock timeout"):
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


def test_a_file_has_one_service_and_a_server_many(
    address: DatabaseAddress, database: Database
) -> None:
    assert database.dialect.many_services == isinstance(address, URL)


def test_a_connection_that_ends_within_the_commit_is_told_apart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise OperationalError(None, None, OSError("gone"), connection_invalidated=True)

    with monkeypatch.context() as patch, pytest.raises(CommitUnknown):
        with database.write() as connection:
            patch.setattr(connection.engine.dialect, "do_commit", lost)
    with pytest.raises(OperationalError) as caught, database.write():
        lost()
    assert not isinstance(caught.value, CommitUnknown)


def test_a_password_is_not_shown() -> None:
    database = Database(postgresql.parse_url("postgresql://me:secret@db.example:5432/name"))
    assert str(database.dialect) == "postgresql://me:***@db.example:5432/name"


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/n", "postgresql:///n", "postgresql://u:secret@h", "secret", "x://["]
)
def test_other_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://USER") as caught:
        postgresql.parse_url(url)
    assert "u:secret" not in str(caught.value)
