"""The processes of the service that work on one database: who they are, and which of them live.

In: a database. Out: a row for as long as the process runs, with a heartbeat by the database's
clock. Several may run on one PostgreSQL; they have one version, so that no two of them disagree
about what a row means. A SQLite file has one service: the lock of its data folder sees to that.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Final

from sqlalchemy import Connection, insert, inspect, select, update
from sqlalchemy.exc import OperationalError

from driftscope_probes.errors import ProbeError
from driftscope_probes.plural import counted
from driftscope_service.store.database import Database
from driftscope_service.store.leases import database_now
from driftscope_service.store.tables import HOST_LENGTH, instances, new_id

#: One small row each time: no load, and three fit into what follows.
HEARTBEAT_S: Final = 10.0
#: Longer than a restart of the database takes, in which nobody can say that he lives.
ALIVE_WITHIN_S: Final = 45.0
_log = logging.getLogger("driftscope")


class OtherVersionRuns(ProbeError):
    """A process of another version works on the database."""


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None  # null: it runs, or was killed

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} with version {self.version}"


class InstanceRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, id: str, *, host: str, pid: int, version: str) -> None:
        now = database_now(self._connection)
        self._connection.execute(
            insert(instances).values(
                id=id,
                host=host[:HOST_LENGTH],
                pid=pid,
                version=version,
                started_at=now,
                heartbeat_at=now,
            )
        )

    def beat(self, id: str) -> None:
        """It lives; also one that had been taken for dead."""
        self._connection.execute(
            update(instances)
            .where(instances.c.id == id)
            .values(heartbeat_at=database_now(self._connection), stopped_at=None)
        )

    def stopped(self, id: str) -> None:
        now = database_now(self._connection)
        self._connection.execute(
            update(instances).where(instances.c.id == id).values(heartbeat_at=now, stopped_at=now)
        )

    def all_stopped(self) -> None:
        """In a database that was restored: those that lived work on the one it was copied from."""
        self._connection.execute(
            update(instances)
            .where(instances.c.stopped_at.is_(None))
            .values(stopped_at=database_now(self._connection))
        )

    def alive(self, within_s: float = ALIVE_WITHIN_S) -> list[Instance]:
        """Those that were heard of lately and have not said that they stop; oldest first."""
        since = database_now(self._connection) - timedelta(seconds=within_s)
        rows = self._connection.execute(
            select(*(instances.c[name] for name in Instance.__dataclass_fields__))
            .where(instances.c.stopped_at.is_(None), instances.c.heartbeat_at >= since)
            .order_by(instances.c.number)
        )
        return [Instance(**row._mapping) for row in rows]

    def has_table(self) -> bool:
        """False before the revision that brings it."""
        return inspect(self._connection).has_table(instances.name)


class Presence:
    """This process in the table: from `join` on, kept by a thread, until `leave`."""

    def __init__(self, database: Database) -> None:
        """Touches no database, and starts nothing."""
        self.id: Final = new_id("instance")
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def join(self) -> None:
        """Raises OtherVersionRuns. From here on the others see this process."""
        own = version("driftscope")
        with self._database.write() as connection:
            found = InstanceRepository(connection)
            others = found.alive()
            if not self._database.dialect.many_services:
                # They were killed: this process holds the lock of the file.
                for other in others:
                    found.stopped(other.id)
                others = []
            for other in others:
                if other.version != own:
                    raise other_version(str(self._database.dialect), other, own)
            found.add(self.id, host=socket.gethostname(), pid=os.getpid(), version=own)
        if others:
            _log.info(
                "%s is shared with %s", self._database.dialect, counted(len(others), "more service")
            )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is."""
        return self._thread.is_alive()

    @property
    def alone(self) -> bool:
        """Whether no other process works on the database now."""
        if not self._database.dialect.many_services:
            return True
        with self._database.read() as connection:
            return all(one.id == self.id for one in InstanceRepository(connection).alive())

    def leave(self) -> None:
        """May be called twice, and where `join` failed."""
        if self._thread.ident is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        try:
            with self._database.write() as connection:
                InstanceRepository(connection).stopped(self.id)
        except OperationalError as error:
            # It counts as dead after a while: nothing waits for longer than that.
            _log.warning("the end of this service could not be recorded: %s", error.orig)

    def _work(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            try:
                with self._database.write() as connection:
                    InstanceRepository(connection).beat(self.id)
            except OperationalError as error:
                _log.error("no heartbeat: the database does not answer: %s", error.orig)
            except Exception:
                # A thread that ends would let the others take this process for dead.
                _log.exception("the heartbeat failed")


def other_version(database: str, other: Instance, own: str) -> OtherVersionRuns:
    return OtherVersionRuns(
        f"a driftscope service of another version works on {database}: {other}; this is version "
        f"{own}.",
        remedy="all services on one database have the same version: stop the others before this "
        f"one starts. One that was killed counts for {ALIVE_WITHIN_S:.0f} seconds.",
    )
