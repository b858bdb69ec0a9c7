"""A PostgreSQL database: writers take turns by an advisory lock, readers see one snapshot.

Every process of the service writes in short transactions. Turns give them the same guarantees as
SQLite's, in which the repositories are written and tested: nothing read changes before the write.
A server that is restarted, fails over, hangs or is cut off gives an error within a bound, here and
on the side of the server, which must not hold a lock for a client that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from driftscope_service.store.dialects.base import json_text

#: As SQLite's busy timeout: longer than any transaction of ours.
LOCK_TIMEOUT_MS = 5000
#: Any constant that no other user of the database takes: "driftsco" as bytes.
WRITER_LOCK = int.from_bytes(b"driftsco", "big")
#: Versions before 0014 hold it as long as they run.
OLDER_SERVICE_LOCK = WRITER_LOCK + 1
#: Connections beyond this wait: the server's own limit is 100 for everybody.
MOST_CONNECTIONS = 20
#: Longer only where every connection is in use, for which a client need not wait longer.
CONNECTION_WAIT_S = 5
CONNECT_TIMEOUT_S = 5
#: The slowest statement of ours, a search in ten thousand runs, takes a second.
STATEMENT_TIMEOUT_MS = 15_000
#: Between two statements of a transaction lies at most the work on one step. A process that stands
#: still in it would keep every other from writing.
IDLE_TRANSACTION_MS = 30_000
#: A peer that is gone without a word is noticed within 10 + 3 × 5 seconds, on both sides.
KEEPALIVES_IDLE_S, KEEPALIVES_INTERVAL_S, KEEPALIVES = 10, 5, 3
UNACKNOWLEDGED_MS = 20_000
SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Postgresql:
    url: URL
    patient: bool = False  # a migration takes as long as it takes

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @property
    def many_services(self) -> bool:
        return True

    def engine(self) -> Engine:
        engine = create_engine(
            self.url.set(drivername="postgresql+psycopg"),
            json_serializer=json_text,
            pool_size=MOST_CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECTION_WAIT_S,
            # A server that was restarted has closed what the pool holds.
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args=_connect_arguments(self.patient),
        )
        if not self.patient:
            event.listen(engine, "do_connect", _bounded)
        return engine

    def begin(self, connection: Connection, *, write: bool) -> None:
        """The snapshot is taken by the first query after the lock, so it has all that was written.

        pg_advisory_xact_lock is itself a query, whence READ COMMITTED for writers: under
        REPEATABLE READ it would take the snapshot before the lock is granted.
        """
        if write:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")

    def held_by_older(self, connection: Connection) -> bool:
        free: bool = connection.exec_driver_sql(
            f"SELECT pg_try_advisory_xact_lock({OLDER_SERVICE_LOCK})"
        ).scalar_one()
        return not free

    def broken_references(self, connection: Connection) -> int:
        return 0  # checked by the server with every statement


def _connect_arguments(patient: bool) -> dict[str, Any]:
    session = {"timezone": "utc", "lock_timeout": LOCK_TIMEOUT_MS}
    if not patient:
        session |= {
            "statement_timeout": STATEMENT_TIMEOUT_MS,
            "idle_in_transaction_session_timeout": IDLE_TRANSACTION_MS,
        }
    # The server's side of the connection: it gives back the locks of a client that is gone.
    session |= {
        "tcp_keepalives_idle": KEEPALIVES_IDLE_S,
        "tcp_keepalives_interval": KEEPALIVES_INTERVAL_S,
        "tcp_keepalives_count": KEEPALIVES,
        "tcp_user_timeout": UNACKNOWLEDGED_MS,
        "client_connection_check_interval": 1000 * KEEPALIVES_IDLE_S,
    }
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
        "keepalives_idle": KEEPALIVES_IDLE_S,
        "keepalives_interval": KEEPALIVES_INTERVAL_S,
        "keepalives_count": KEEPALIVES,
        "tcp_user_timeout": UNACKNOWLEDGED_MS,
        # After a failover the old server may come back as a copy, which takes no writes.
        "target_session_attrs": "read-write",
    }


def _bounded(_dialect: object, _record: object, given: Any, named: Any) -> Any:
    # Imported late: the driver is an extra, which a service on SQLite does not have.
    from driftscope_service.store.dialects.bounded_connection import BoundedConnection

    return BoundedConnection.connect(*given, **named)


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
