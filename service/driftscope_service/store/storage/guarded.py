"""A storage from which nothing goes while a backup copies it.

Whoever removes files has committed that no row names them any more. A backup takes its lease before
it looks at the rows: a removal that its rows do not know of yet therefore finds the lease, and
leaves the files to the sweep.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.exc import OperationalError

from driftscope_service.store.database import Database
from driftscope_service.store.leases import LeaseRepository, database_now
from driftscope_service.store.storage.base import Storage, StoredFile

BACKUP_LEASE: Final = "backup"
_log = logging.getLogger("driftscope")


def backup_runs(database: Database) -> bool:
    with database.read() as connection:
        held = LeaseRepository(connection).get(BACKUP_LEASE)
        return held is not None and held.expires_at > database_now(connection)


@dataclass(frozen=True, slots=True)
class GuardedStorage:
    storage: Storage
    database: Database

    def __str__(self) -> str:
        return str(self.storage)

    def put(self, name: str, source: Path) -> None:
        self.storage.put(name, source)

    def path(self, name: str) -> Path:
        return self.storage.path(name)

    def read(self, name: str) -> bytes:
        return self.storage.read(name)

    def write(self, name: str, content: bytes) -> None:
        self.storage.write(name, content)

    def size(self, name: str) -> int | None:
        return self.storage.size(name)

    def files(self, folder: str) -> Iterator[StoredFile]:
        return self.storage.files(folder)

    def remove(self, names: Iterable[str]) -> None:
        given = list(names)
        if not given:
            return
        try:
            kept = backup_runs(self.database)
        except OperationalError as error:
            _log.error("files left to the next sweep: %d; the database: %s", len(given), error)
            return
        if kept:
            _log.info("files left to the next sweep, since a backup runs: %d", len(given))
        else:
            self.storage.remove(given)
