"""Transactions on the database of the service: SQLite in the data folder, or PostgreSQL.

A read sees one consistent state; writes take turns, so that what one reads cannot change before it
writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import OperationalError

from driftscope_service.store.dialects.base import Dialect
from driftscope_service.store.dialects.postgresql import Postgresql
from driftscope_service.store.dialects.sqlite import Sqlite

#: A file of SQLite or the URL of a PostgreSQL database.
DatabaseAddress = Path | URL
WRITE_OPTION = "driftscope_write"


#: SQLite's code, and the SQLSTATE of PostgreSQL, for a disk that is full.
_SQLITE_FULL = 13
_POSTGRESQL_FULL = "53100"


def is_full(error: OperationalError) -> bool:
    """Whether the disk of the database is full, which waiting for a lock does not mend."""
    cause = error.orig
    return (
        getattr(cause, "sqlite_errorcode", None) == _SQLITE_FULL
        or getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL
    )


class Database:
    def __init__(self, address: DatabaseAddress, *, foreign_keys: bool = True) -> None:
        """Opens nothing yet. `foreign_keys=False` is for migrations that rebuild a table."""
        self.dialect = _dialect(address, foreign_keys)
        self._engine = self.dialect.engine()
        event.listen(self._engine, "begin", self._on_begin)

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

    def held(self) -> AbstractContextManager[bool]:
        """For as long as a service works on it; False where another service does."""
        return self.dialect.held(self._engine)

    def dispose(self) -> None:
        self._engine.dispose()

    def _on_begin(self, connection: Connection) -> None:
        write = connection.get_execution_options().get(WRITE_OPTION, False)
        self.dialect.begin(connection, write=write)


def _dialect(address: DatabaseAddress, foreign_keys: bool) -> Dialect:
    if isinstance(address, URL):
        return Postgresql(address)
    return Sqlite(address, foreign_keys)
