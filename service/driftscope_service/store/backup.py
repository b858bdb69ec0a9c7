"""A backup: every row and every file that a row names, as of one moment, while the service runs.

    DEST/manifest.json    written last: without it the folder is no backup
    DEST/database.sqlite  every row, whichever database system it came from
    DEST/files.jsonl      name, size and SHA-256 of every file, one a line
    DEST/files/…          files of the storage under their names
    DEST/local/…          calibrated floors and the nightly history of the data folder

The rows are read in one transaction, which sees one state. Files never change, and none goes while
the lease `backup` is held (`storage/guarded.py`), so that the files of that state are all there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table, insert, select, text

from driftscope_probes.durable_file import sync, write_whole
from driftscope_probes.errors import ProbeError
from driftscope_service.store import migrate
from driftscope_service.store.database import Database
from driftscope_service.store.identity import database_id
from driftscope_service.store.leases import LeaseRepository
from driftscope_service.store.storage.base import Storage
from driftscope_service.store.storage.guarded import BACKUP_LEASE
from driftscope_service.store.storage.named_files import NamedFile, named_files, report_folders
from driftscope_service.store.tables import metadata, new_id

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "database.sqlite"
FILE_LIST: Final = "files.jsonl"
FILES: Final = "files"
LOCAL: Final = "local"
#: Folders of the data folder that no row names: small, and wanted back.
LOCAL_FOLDERS: Final = ("floors", "nightly")
#: A restored service has other instances and another storage; a login is made again, and what the
#: webhook was about to tell has been told, or is old.
LEFT_OUT: Final = frozenset({"leases", "notices", "sessions", "storage_identity"})
#: Removals wait no longer than this for a backup that was killed.
LEASE_S: Final = 300.0
_RENEW_S: Final = 30.0
#: A step's analysis is some tens of kilobytes, so that this many rows are megabytes.
_ROWS: Final = 200
_CHUNK: Final = 2**20


class BackupError(ProbeError):
    """A backup cannot be made, or what is there is none."""


@dataclass(frozen=True, slots=True)
class CopiedFile:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    made_at: str
    version: str
    revision: str
    storage_id: str | None
    numbers: Mapping[str, int]  # by table, the last number given: none is given twice
    files: int
    size_bytes: int  # of all files
    file_list_sha256: str
    database_sha256: str
    missing: tuple[str, ...]  # named by rows, and not in the storage, or not of the size there


def make_backup(database: Database, storage: Storage, data_dir: Path, dest: Path) -> Manifest:
    """Raises BackupError, OSError. `dest`: new, or an empty folder."""
    _check_new(dest)
    with _lease(database) as renew:
        with database.read() as connection:
            revision = migrate.current_revision(connection)
            owner = database_id(connection)
            numbers = last_numbers(connection)
            copy_rows_to_file(connection, dest / DATABASE, renew)
            wanted = list(named_files(connection))
            folders = report_folders(connection)
        assert revision is not None
        copied, missing = _copy_files(storage, wanted, folders, dest, renew)
        copied += list(_copy_local(data_dir, dest))
        lines = "".join(json.dumps(asdict(file)) + "\n" for file in copied)
        write_whole(dest / FILE_LIST, lines)
        manifest = Manifest(
            format=FORMAT,
            made_at=datetime.now(UTC).isoformat(),
            version=version("driftscope"),
            revision=revision,
            storage_id=owner,
            numbers=numbers,
            files=len(copied),
            size_bytes=sum(file.size_bytes for file in copied),
            file_list_sha256=hashlib.sha256(lines.encode()).hexdigest(),
            database_sha256=_sha256(dest / DATABASE),
            missing=tuple(missing),
        )
        # One by one: syncing the whole machine would make the service's commits wait.
        for file in copied:
            sync(dest / file.name)
            renew()
        write_whole(dest / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def read_backup(source: Path) -> tuple[Manifest, list[CopiedFile]]:
    """Checked whole, every file of it: raises BackupError where anything is missing or changed."""
    try:
        manifest = Manifest(**json.loads((source / MANIFEST).read_text()))
        lines = (source / FILE_LIST).read_text()
        database_sha256 = _sha256(source / DATABASE)
    except FileNotFoundError as error:
        raise _no_backup(source, f"{Path(error.filename).name} is missing") from None
    except (ValueError, TypeError) as error:
        raise _no_backup(source, f"its manifest cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise _no_backup(source, f"it has format {manifest.format}, this version reads {FORMAT}")
    if hashlib.sha256(lines.encode()).hexdigest() != manifest.file_list_sha256:
        raise _no_backup(source, f"{FILE_LIST} was changed")
    if database_sha256 != manifest.database_sha256:
        raise _no_backup(source, f"{DATABASE} was changed")
    files = [CopiedFile(**json.loads(line)) for line in lines.splitlines()]
    for file in files:
        path = source / file.name
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            raise _no_backup(source, f"{file.name} is missing or not of its size")
        if _sha256(path) != file.sha256:
            raise _no_backup(source, f"{file.name} was changed")
    return manifest, files


def copy_rows_to_file(
    connection: Connection, target: Path, renew: Callable[[], None] = lambda: None
) -> None:
    migrate.upgrade(target)
    file = Database(target, foreign_keys=False)
    try:
        with file.write() as written:
            copy_rows(connection, written, renew)
    finally:
        file.dispose()
    # One file, whole: no write-ahead log is left beside it.
    with closing(sqlite3.connect(target)) as alone:
        alone.execute("PRAGMA journal_mode = DELETE")


def copy_rows(
    source: Connection, target: Connection, renew: Callable[[], None] = lambda: None
) -> None:
    for table in copied_tables():
        # By parts, also from the server: all rows may be gigabytes.
        every = select(table).order_by(*table.primary_key).execution_options(yield_per=_ROWS)
        for rows in source.execute(every).partitions():
            target.execute(insert(table), [dict(row._mapping) for row in rows])
            renew()


def copied_tables() -> list[Table]:
    """What others refer to first."""
    return [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


def numbered_tables() -> list[Table]:
    return [table for table in copied_tables() if "number" in table.primary_key.columns]


def last_numbers(connection: Connection) -> dict[str, int]:
    """Rows that were deleted had numbers too, which pages and cursors may still hold."""
    found = {}
    for table in numbered_tables():
        if connection.dialect.name == "postgresql":
            query = text("SELECT last_value FROM pg_sequences WHERE sequencename = :name")
            row = connection.execute(query, {"name": f"{table.name}_number_seq"}).first()
        else:
            has = "SELECT seq FROM sqlite_sequence WHERE name = :name"
            row = connection.execute(text(has), {"name": table.name}).first()
        if row is not None and row[0]:  # 0 and none: it never had a row
            found[table.name] = int(row[0])
    return found


def _check_new(dest: Path) -> None:
    try:
        dest.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = any(dest.iterdir())
    except OSError as error:
        raise BackupError(
            f"{dest} cannot be used: {error.strerror}.", remedy="give another folder."
        ) from None
    if taken:
        raise BackupError(
            f"{dest} is not empty.", remedy="give a new folder: every backup is whole."
        )


@contextmanager
def _lease(database: Database) -> Iterator[Callable[[], None]]:
    """One backup at a time. Yields what is called now and then while it is made."""
    owner, taken_at = new_id("instance"), time.monotonic()

    def take() -> None:
        with database.write() as connection:
            held = LeaseRepository(connection).take(BACKUP_LEASE, owner, LEASE_S)
        if held is None:
            raise BackupError(
                "another backup of this database is being made.",
                remedy="wait until it is done; one that was killed is forgotten after "
                f"{LEASE_S:g} seconds.",
            )

    def renew() -> None:
        nonlocal taken_at
        if time.monotonic() - taken_at > _RENEW_S:
            taken_at = time.monotonic()
            take()

    take()
    try:
        yield renew
    finally:
        with database.write() as connection:
            LeaseRepository(connection).release(BACKUP_LEASE, owner)


def _copy_files(
    storage: Storage,
    wanted: list[NamedFile],
    folders: set[str],
    dest: Path,
    renew: Callable[[], None],
) -> tuple[list[CopiedFile], list[str]]:
    """What was copied, and what should be there and is not."""
    beside = [
        NamedFile(file.name, file.size_bytes)
        for folder in sorted(folders)
        for file in storage.files(folder)
        if not file.name.endswith("/report.json")
    ]
    copied, missing = [], []
    for file in [*wanted, *beside]:
        target = dest / FILES / file.name
        try:
            found = _copied(storage.path(file.name), target, f"{FILES}/{file.name}")
        except FileNotFoundError:
            missing.append(file.name)
            continue
        if file.size_bytes not in (None, found.size_bytes):
            missing.append(file.name)
        copied.append(found)
        renew()
    return copied, missing


def _copy_local(data_dir: Path, dest: Path) -> Iterator[CopiedFile]:
    for folder in LOCAL_FOLDERS:
        for path in sorted((data_dir / folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                name = f"{LOCAL}/{path.relative_to(data_dir).as_posix()}"
                yield _copied(path, dest / name, name)


def _copied(source: Path, target: Path, name: str) -> CopiedFile:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as written:
            while chunk := read.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                written.write(chunk)
    return CopiedFile(name, size, digest.hexdigest())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_backup(source: Path, why: str) -> BackupError:
    return BackupError(
        f"{source} is no backup that can be restored: {why}.",
        remedy="give the folder of a backup that ended without an error. Nothing was changed.",
    )
