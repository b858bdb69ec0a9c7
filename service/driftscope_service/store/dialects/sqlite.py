"""One SQLite file in write-ahead mode: readers never wait, a writer takes the lock at once.

BEGIN IMMEDIATE, so that what a transaction reads cannot change before it writes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from driftscope_service.store.dialects.base import json_text

#: Longer than any transaction of ours; an HTTP client still waits this long.
BUSY_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Sqlite:
    path: Path
    foreign_keys: bool = True  # False is for migrations that rebuild a table

    def __str__(self) -> str:
        return str(self.path)

    def engine(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            json_serializer=json_text,
            # As many as there are threads: a connection to a file costs little, waiting costs more.
            max_overflow=-1,
        )
        event.listen(engine, "connect", self._on_connect)
        return engine

    def begin(self, connection: Connection, *, write: bool) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @property
    def many_services(self) -> bool:
        return False  # the lock of the data folder holds its file as well

    def held_by_older(self, connection: Connection) -> bool:
        return False

    def broken_references(self, connection: Connection) -> int:
        return len(connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall())

    def _on_connect(self, connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN is deferred and skips DDL; ours is emitted in begin().
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL may lose the last commits on power loss, and with them an accepted job.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if self.foreign_keys else 'OFF'}")
