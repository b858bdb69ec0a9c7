"""A storage belongs to one database: both hold the same id, checked at every start.

Without it a service that starts once with another, empty database would take every file for one
that nothing names, and sweep it away.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from driftscope_probes.errors import ProbeError
from driftscope_service.store.database import Database
from driftscope_service.store.instances import InstanceRepository
from driftscope_service.store.storage.base import (
    IDENTITY_NAME,
    Storage,
    our_files,
)
from driftscope_service.store.storage.named_files import (
    named_files,
    report_folder,
    report_folders,
)
from driftscope_service.store.tables import (
    new_id,
    storage_identity,
)

#: Of the newest rows of each table: where no file of theirs is there, it is another storage. More
#: would make every first start on a bucket slower and say no more.
SAMPLE: Final = 16
#: Before a storage is given to another database, an instance must have been silent for longer than
#: one that is only slow would be.
SILENT_FOR_S: Final = 120.0


class StorageMismatch(ProbeError):
    """The storage and the database do not belong together."""


def claim_storage(database: Database, storage: Storage) -> str:
    """The id that both have; given to both where neither has one. Raises StorageMismatch."""
    there = stored_id(storage)
    with database.read() as connection:
        ours = database_id(connection)
    if there is not None and there == ours:
        return there  # nothing is written, so that a full disk does not matter
    with database.write() as connection:  # two instances take turns
        ours = database_id(connection)
        if there is not None:
            if there != ours:
                raise _other_owner(database, storage, ours, there)
            return there
        _check_fits(connection, database, storage, ours)
        if ours is None:
            ours = _give(connection)
    # The database first: one that has an id and a storage that has none may still be joined.
    write_id(storage, ours)
    return ours


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a storage and a database that are to belong together hold."""

    named: int  # files that rows name
    missing: int  # of them, not in the storage
    unknown: int  # files in the storage that no row names: swept away after a day


def adoption(database: Database, storage: Storage) -> Adoption:
    with database.read() as connection:
        named = {file.name for file in named_files(connection)}
        folders = report_folders(connection)
    there = [file.name for file in our_files(storage)]
    known = [name for name in there if name in named or report_folder(name) in folders]
    return Adoption(len(named), len(named.difference(there)), len(there) - len(known))


def adopt(database: Database, storage: Storage) -> str:
    """Both get a new id: another database that owned the storage is refused from now on.

    Raises StorageMismatch where an instance works on the database.
    """
    with database.write() as connection:
        alive = len(InstanceRepository(connection).alive(SILENT_FOR_S))
        if alive:
            raise StorageMismatch(
                f"{alive} instances of the service use {database.dialect}.",
                remedy="stop them first: they would go on with the storage they have.",
            )
        connection.execute(delete(storage_identity))
        given = _give(connection)
        # Within the transaction: where it cannot be written, the database keeps its id.
        write_id(storage, given)
    return given


def stored_id(storage: Storage) -> str | None:
    """None where it has none. Raises StorageMismatch where the file is damaged."""
    try:
        content = storage.read(IDENTITY_NAME)
    except FileNotFoundError:
        return None
    try:
        return str(json.loads(content)["storage_id"])
    except (ValueError, LookupError, TypeError):
        raise StorageMismatch(
            f"{IDENTITY_NAME} in {storage} cannot be read.",
            remedy="bring it back from a backup, or state whose it is: driftscope db adopt.",
        ) from None


def write_id(storage: Storage, identifier: str) -> None:
    content = {"storage_id": identifier, "note": "do not remove: see docs/storage.md"}
    storage.write(IDENTITY_NAME, json.dumps(content).encode())


def database_id(connection: Connection) -> str | None:
    statement = select(storage_identity.c.storage_id).order_by(storage_identity.c.number)
    found: str | None = connection.execute(statement.limit(1)).scalar_one_or_none()
    return found


def _give(connection: Connection) -> str:
    given = new_id("storage")
    connection.execute(
        insert(storage_identity).values(storage_id=given, created_at=datetime.now(UTC))
    )
    return given


def _check_fits(
    connection: Connection, database: Database, storage: Storage, ours: str | None
) -> None:
    """A storage without an id: its files are those that the rows name, or there are none."""
    sample = list(named_files(connection, SAMPLE))
    if not sample:
        if next(our_files(storage), None) is not None:
            raise StorageMismatch(
                f"{storage} has files of another database: {database.dialect} names none of them.",
                remedy=_REMEDY,
            )
        return
    if all(storage.size(file.name) is None for file in sample):
        raise StorageMismatch(
            f"none of the newest {len(sample)} files that {database.dialect} names is in "
            f"{storage}; the storage id of the database is {ours}, the storage has none.",
            remedy=_REMEDY,
        )


_REMEDY: Final = (
    "give the storage and the database that belong together: --data-dir, DRIFTSCOPE_STORAGE_URL, "
    "DRIFTSCOPE_DATABASE_URL. Where they do, state it: driftscope db adopt. Nothing was changed."
)


def _other_owner(
    database: Database, storage: Storage, ours: str | None, there: str
) -> StorageMismatch:
    said = f"has {ours}" if ours is not None else "has none"
    return StorageMismatch(
        f"{storage} belongs to another database: its storage id is {there}, {database.dialect} "
        f"{said}.",
        remedy=_REMEDY,
    )
