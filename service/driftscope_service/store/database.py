"""Connections to the SQLite file: pragmas, read and write transactions.

A read sees one consistent state; a write takes the write lock at once (BEGIN IMMEDIATE), so that
what it reads cannot change before it writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

#: Longer than any transaction of ours; an HTTP client still waits this long.
BUSY_TIMEOUT_MS = 5000
WRITE_OPTION = "driftscope_write"


class Database:
    def __init__(self, path: Path, *, foreign_keys: bool = True) -> None:
        """Opens nothing yet. `foreign_keys=False` is for migrations that rebuild a table."""
        self.path = path
        self._foreign_keys = foreign_keys
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            json_serializer=partial(json.dumps, allow_nan=False),
            # As many as there are threads: a connection to a file costs little, waiting costs more.
            max_overflow=-1,
        )
        event.listen(self._engine, "connect", self._on_connect)
        event.listen(self._engine, "begin", _on_begin)

    def _on_connect(self, connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN is deferred and skips DDL; ours is emitted in _on_begin.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL may lose the last commits at a power cut, and with them an accepted job.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if self._foreign_keys else 'OFF'}")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Commits at the end, rolls back on any exception."""
        with self._engine.connect() as connection:
            connection.execution_options(**{WRITE_OPTION: True})
            with connection.begin():
                yield connection

    def dispose(self) -> None:
        self._engine.dispose()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
