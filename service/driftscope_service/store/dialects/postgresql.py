"""A PostgreSQL database: writers take turns by an advisory lock, readers see one snapshot.

One service writes to a database, in short transactions. Turns give it the same guarantees as
SQLite's, in which the repositories are written and tested: nothing read changes before the write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from driftscope_service.store.dialects.base import json_text

#: As SQLite's busy timeout: longer than any transaction of ours.
LOCK_TIMEOUT_MS = 5000
#: Any constant that no other user of the database takes: "driftsco" as bytes.
WRITER_LOCK = int.from_bytes(b"driftsco", "big")
SERVICE_LOCK = WRITER_LOCK + 1
#: Connections beyond this wait: the server's own limit is 100 for everybody.
MOST_CONNECTIONS = 20
CONNECT_TIMEOUT_S = 10
SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Postgresql:
    url: URL

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def engine(self) -> Engine:
        return create_engine(
            self.url.set(drivername="postgresql+psycopg"),
            json_serializer=json_text,
            pool_size=MOST_CONNECTIONS,
            max_overflow=0,
            # A server that was restarted has closed what the pool holds.
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": f"-c timezone=utc -c lock_timeout={LOCK_TIMEOUT_MS}",
            },
        )

    def begin(self, connection: Connection, *, write: bool) -> None:
        """The snapshot is taken by the first query after the lock, so it has all that was written.

        pg_advisory_xact_lock is itself a query, whence READ COMMITTED for writers: under
        REPEATABLE READ it would take the snapshot before the lock is granted.
        """
        if write:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")

    @contextmanager
    def held(self, engine: Engine) -> Iterator[bool]:
        """A session lock: it ends with its connection, also when the service is killed."""
        with engine.connect() as connection:
            free: bool = connection.exec_driver_sql(
                f"SELECT pg_try_advisory_lock({SERVICE_LOCK})"
            ).scalar_one()
            connection.commit()
            yield free
            connection.invalidate()

    def broken_references(self, connection: Connection) -> int:
        return 0  # checked by the server with every statement


def parse_url(text: str) -> URL:
    """Raises ValueError, without the password in its text."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"not a database URL; give {EXAMPLE}") from None
    if url.drivername not in SCHEMES or not url.host or not url.database:
        raise ValueError(f"{url.render_as_string()!r} is not accepted; give {EXAMPLE}")
    return url


EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/NAME, or nothing for SQLite in the data folder"
