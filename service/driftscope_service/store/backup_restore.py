"""Puts a backup into an empty database and an empty storage; either may be of the other kind.

Everything is checked before anything is written. Rows keep their ids; the storage gets a new one,
so that the original and its copy never take each other's files for their own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, text

from driftscope_service.store import migrate
from driftscope_service.store.backup import (
    DATABASE,
    FILES,
    LOCAL,
    BackupError,
    CopiedFile,
    Manifest,
    copied_tables,
    copy_rows,
    numbered_tables,
    read_backup,
)
from driftscope_service.store.database import Database
from driftscope_service.store.identity import claim_storage, stored_id
from driftscope_service.store.instances import InstanceRepository
from driftscope_service.store.storage.base import Storage, our_files


@dataclass(frozen=True, slots=True)
class Restored:
    manifest: Manifest
    storage_id: str


def restore(
    source: Path,
    database: Database,
    storage: Storage,
    data_dir: Path,
    settle: Callable[[Connection], None] = lambda _: None,
) -> Restored:
    """`database`: at this version's schema, with no service on it. `settle` works in the
    transaction of the rows. Raises BackupError, OSError."""
    _check_empty(database, storage)
    manifest, files = read_backup(source)
    # Beside the target, since a backup is not written to, and may be of an older version.
    with tempfile.TemporaryDirectory(dir=data_dir) as made:
        rows = Path(made) / DATABASE
        shutil.copyfile(source / DATABASE, rows)
        migrate.upgrade(rows)
        for file in files:
            _put(source, file, storage, data_dir, Path(made))
        # Last: without rows the files are nobody's, and can be removed.
        opened = Database(rows)
        try:
            with opened.read() as read, database.write() as written:
                copy_rows(read, written)
                _set_numbers(written, manifest.numbers)
                InstanceRepository(written).all_stopped()
                settle(written)
        finally:
            opened.dispose()
    return Restored(manifest, claim_storage(database, storage))


def _check_empty(database: Database, storage: Storage) -> None:
    with database.read() as connection:
        filled = [
            table.name
            for table in copied_tables()
            if table.name != "instances"
            and connection.execute(select(table.primary_key.columns[0]).limit(1)).first()
        ]
    if filled:
        raise _not_empty(f"{database.dialect} has rows in {', '.join(filled)}")
    if (there := stored_id(storage)) is not None:
        raise _not_empty(f"{storage} belongs to a database: its storage id is {there}")
    if (file := next(our_files(storage), None)) is not None:
        raise _not_empty(f"{storage} has files, such as {file.name}")


def _not_empty(what: str) -> BackupError:
    return BackupError(
        f"{what}.",
        remedy="restore into a new --data-dir, an empty DRIFTSCOPE_DATABASE_URL and an empty "
        "DRIFTSCOPE_STORAGE_URL. Nothing was changed.",
    )


def _put(source: Path, file: CopiedFile, storage: Storage, data_dir: Path, made: Path) -> None:
    kind, _, name = file.name.partition("/")
    if kind == LOCAL:
        target = data_dir / name
        assert target.resolve().is_relative_to(data_dir.resolve()), f"{name} leaves its folder"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.name, target)
        return
    assert kind == FILES, file.name
    copy = made / "file"
    shutil.copyfile(source / file.name, copy)
    storage.put(name, copy)


def _set_numbers(connection: Connection, numbers: Mapping[str, int]) -> None:
    """What is added from now on comes after everything that ever was."""
    for table in numbered_tables():
        last = numbers.get(table.name)
        if last is None:
            continue
        if connection.dialect.name == "postgresql":
            set_to = text("SELECT setval(pg_get_serial_sequence(:name, 'number'), :last)")
            connection.execute(set_to, {"name": table.name, "last": last})
        elif table.dialect_options["sqlite"]["autoincrement"]:
            for statement in (
                "DELETE FROM sqlite_sequence WHERE name = :name",
                "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)",
            ):
                connection.execute(text(statement), {"name": table.name, "last": last})
