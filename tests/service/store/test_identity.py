"""A storage and a database that belong together, and those that do not, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from ulid import ULID

from driftscope_service.store import migrate, tables
from driftscope_service.store.database import Database
from driftscope_service.store.identity import (
    StorageMismatch,
    adopt,
    adoption,
    claim_storage,
    database_id,
    stored_id,
)
from driftscope_service.store.storage.base import IDENTITY_NAME
from driftscope_service.store.storage.local import LocalStorage
from driftscope_service.store.storage.sweep import sweep


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """Another, empty database."""
    path = tmp_path / "other.db"
    migrate.upgrade(path)
    database = Database(path)
    yield database
    database.dispose()


def put(storage: LocalStorage, tmp_path: Path, content: bytes = b"tokens") -> str:
    """A file that no row names yet; its name within steps/."""
    source = tmp_path / "source"
    source.write_bytes(content)
    name = f"{ULID()}.parquet"
    storage.put(f"steps/{name}", source)
    return name


def add_report(database: Database, file: str) -> None:
    now = datetime.now(UTC)
    job = {"id": str(ULID()), "kind": "paired", "state": "succeeded", "request": {}}
    progress = {"stage": "done", "fraction": 1.0, "detail": ""}
    report = {"id": str(ULID()), "kind": "paired", "summary": {}, "file": file, "size_bytes": 1}
    with database.write() as connection:
        connection.execute(insert(tables.jobs).values(**job, **progress, created_at=now))
        connection.execute(
            insert(tables.reports).values(**report, job_id=job["id"], created_at=now)
        )


def report_file(storage: LocalStorage) -> str:
    name = f"reports/report_{ULID()}/report.json"
    storage.write(name, b"{}")
    return name


def identities(database: Database, storage: LocalStorage) -> tuple[str | None, str | None]:
    with database.read() as connection:
        return database_id(connection), stored_id(storage)


def test_the_first_start_joins_them(database: Database, storage: LocalStorage) -> None:
    given = claim_storage(database, storage)
    assert given.startswith("storage_")
    assert identities(database, storage) == (given, given)
    assert claim_storage(database, storage) == given


def test_files_of_an_older_version_are_taken_over(
    database: Database, storage: LocalStorage
) -> None:
    add_report(database, report_file(storage))
    add_report(database, "reports/lost/report.json")
    claim_storage(database, storage)


def test_an_empty_database_takes_no_files(
    database: Database, other: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    """The fault of old: one start with another, empty database removed every file."""
    file = report_file(storage)
    add_report(database, file)
    with pytest.raises(StorageMismatch, match="names none of them.*\n.*driftscope db adopt"):
        claim_storage(other, storage)
    ours = claim_storage(database, storage)
    with pytest.raises(StorageMismatch, match=f"its storage id is {ours}.*has none"):
        claim_storage(other, storage)
    theirs = claim_storage(other, LocalStorage(tmp_path / "theirs"))
    with pytest.raises(StorageMismatch, match=f"{ours}.*has {theirs}"):
        claim_storage(other, storage)
    assert storage.size(file) == 2
    assert identities(database, storage) == (ours, ours)


def test_rows_whose_files_are_elsewhere(database: Database, storage: LocalStorage) -> None:
    """A bucket or a mount that is not there, with or without an id in the database."""
    add_report(database, "reports/report_x/report.json")
    with pytest.raises(StorageMismatch, match="none of the newest 1 files"):
        claim_storage(database, storage)
    assert identities(database, storage) == (None, None)


def test_a_database_without_files_takes_a_new_storage(
    database: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    given = claim_storage(database, storage)
    new = LocalStorage(tmp_path / "new")
    assert claim_storage(database, new) == given
    add_report(database, report_file(new))
    with pytest.raises(StorageMismatch):
        claim_storage(database, LocalStorage(tmp_path / "third"))


def test_a_kill_between_the_two_ids(database: Database, storage: LocalStorage) -> None:
    given = claim_storage(database, storage)
    storage.remove([IDENTITY_NAME])
    assert claim_storage(database, storage) == given


def test_a_damaged_id(database: Database, storage: LocalStorage) -> None:
    storage.write(IDENTITY_NAME, b"{")
    with pytest.raises(StorageMismatch, match="cannot be read"):
        claim_storage(database, storage)


def test_adopting_shuts_the_other_database_out(
    database: Database, other: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    claim_storage(other, storage)
    named, lost = report_file(storage), "reports/report_x/report.json"
    put(storage, tmp_path)
    add_report(database, named)
    add_report(database, lost)
    found = adoption(database, storage)
    assert (found.named, found.missing, found.unknown) == (2, 1, 1)
    given = adopt(database, storage)
    assert claim_storage(database, storage) == given
    with pytest.raises(StorageMismatch):
        claim_storage(other, storage)


def test_nothing_is_adopted_beside_a_live_instance(
    database: Database, storage: LocalStorage
) -> None:
    now = datetime.now(UTC)
    row = {"id": "instance_1", "host": "h", "pid": 1, "version": "1"}
    with database.write() as connection:
        connection.execute(insert(tables.instances).values(**row, started_at=now, heartbeat_at=now))
    with pytest.raises(StorageMismatch, match="1 instances"):
        adopt(database, storage)
    with database.write() as connection:
        connection.execute(
            update(tables.instances).values(heartbeat_at=now - timedelta(minutes=10))
        )
    adopt(database, storage)


def test_a_sweep_takes_only_what_is_old_ours_and_unnamed(
    database: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    named = report_file(storage)
    add_report(database, named)
    storage.write(named.replace("report.json", "pairs/a"), b"beside it")
    unnamed, root = put(storage, tmp_path), tmp_path / "storage"
    (root / "steps" / "lost+found").mkdir()
    (root / "steps" / "lost+found" / "x.raw").write_bytes(b"theirs")
    (root / "steps" / "notes.raw").write_bytes(b"theirs")
    orphan = report_file(storage)
    before = {file.name for folder in ("steps", "reports") for file in storage.files(folder)}
    assert sweep(database, storage, "a") == 0  # too young
    assert sweep(database, storage, "b", age=timedelta()) == 0  # another swept just now
    assert sweep(database, storage, "a", age=timedelta()) == 2
    after = {file.name for folder in ("steps", "reports") for file in storage.files(folder)}
    assert before - after == {f"steps/{unnamed}", orphan}


def test_the_id_says_what_it_is(database: Database, storage: LocalStorage) -> None:
    claim_storage(database, storage)
    assert "do not remove" in json.loads(storage.read(IDENTITY_NAME))["note"]
