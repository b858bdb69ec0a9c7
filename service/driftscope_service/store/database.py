"""Transactions on the database of the service: SQLite in the data folder, or PostgreSQL.

A read sees one consistent state; writes take turns, so that what one reads cannot change before it
writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

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


class CommitUnknown(OperationalError):
    """The connection ended within the commit: the database may have done all of it, or nothing.
    Whatever the rows would name has to stay where it is."""


class Database:
    def __init__(
        self, address: DatabaseAddress, *, foreign_keys: bool = True, patient: bool = False
    ) -> None:
        """Opens nothing yet. `foreign_keys=False` is for migrations that rebuild a table, `patient`
        for statements that may take as long as they like."""
        self.dialect = _dialect(address, foreign_keys, patient)
        self._engine = self.dialect.engine()
        event.listen(self._engine, "begin", self._on_begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with _one_error(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Commits at the end, rolls back on any exception. Raises CommitUnknown."""
        committing = False
        try:
            with _one_error(), self._engine.connect() as connection:
                connection.execution_options(**{WRITE_OPTION: True})
                with connection.begin():
                    yield connection
                    committing = True
        except OperationalError as error:
            if committing and error.connection_invalidated:
                raise CommitUnknown(
                    error.statement, error.params, error.orig or error, connection_invalidated=True
                ) from error
            raise

    def dispose(self) -> None:
        self._engine.dispose()

    def _on_begin(self, connection: Connection) -> None:
        write = connection.get_execution_options().get(WRITE_OPTION, False)
        self.dialect.begin(connection, write=write)


@contextmanager
def _one_error() -> Iterator[None]:
    """A server that goes away says so in many ways; whoever waits for it catches one."""
    try:
        yield
    except OperationalError:
        raise
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise OperationalError(
            error.statement, error.params, error.orig or error, connection_invalidated=True
        ) from error
    except NoConnectionFree as error:
        raise OperationalError(None, None, error) from error


def _dialect(address: DatabaseAddress, foreign_keys: bool, patient: bool) -> Dialect:
    if isinstance(address, URL):
        return Postgresql(address, patient)
    return Sqlite(address, foreign_keys)
