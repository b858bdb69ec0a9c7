"""What one instance of the service at a time may do: leases with an end and a fencing number.

Times are the database's where several machines write to it, so that clocks of theirs need not
agree.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import OperationalError

from driftscope_service.store.database import Database
from driftscope_service.store.tables import leases

_log = logging.getLogger("driftscope")


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    owner: str  # an instance
    fence: int  # grows with every change of owner
    expires_at: datetime


def database_now(connection: Connection) -> datetime:
    """The present moment by the clock that every instance on this database shares."""
    if connection.dialect.name == "postgresql":
        now = connection.execute(select(func.clock_timestamp())).scalar_one()
        assert isinstance(now, datetime)
        return now.astimezone(UTC)
    return datetime.now(UTC)  # the file has one service, on this machine


class LeaseRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(
        self, name: str, owner: str, seconds: float, *, from_the_dead: bool = False
    ) -> Lease | None:
        """Take or renew; None where another owner's has not expired. `from_the_dead`: take it all
        the same, since that owner is known to have ended."""
        now = database_now(self._connection)
        expires_at = now + timedelta(seconds=seconds)
        held = self.get(name)
        if held is None:
            self._connection.execute(
                insert(leases).values(name=name, owner=owner, fence=1, expires_at=expires_at)
            )
            return Lease(name, owner, 1, expires_at)
        if held.owner != owner and held.expires_at > now and not from_the_dead:
            return None
        fence = held.fence if held.owner == owner else held.fence + 1
        self._connection.execute(
            update(leases)
            .where(leases.c.name == name)
            .values(owner=owner, fence=fence, expires_at=expires_at)
        )
        return Lease(name, owner, fence, expires_at)

    def release(self, name: str, owner: str) -> None:
        """No effect where another owner has it. The row stays: its fence must never fall."""
        self._connection.execute(
            update(leases)
            .where(leases.c.name == name, leases.c.owner == owner)
            .values(expires_at=database_now(self._connection))
        )

    def get(self, name: str) -> Lease | None:
        row = self._connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
        return None if row is None else Lease(**row._mapping)


def once_every(database: Database, name: str, owner: str, seconds: float) -> bool:
    """Whether this instance does it now; False where another one did within that time. The lease is
    not released: whoever asks before it ends need not do it again."""
    with database.write() as connection:
        return LeaseRepository(connection).take(name, owner, seconds) is not None


class Turn:
    """What one instance at a time does, again and again: this one's hold on the lease for it."""

    def __init__(self, database: Database, name: str, owner: str, seconds: float) -> None:
        self._database = database
        self._name = name
        self._owner = owner
        self._seconds = seconds
        # SQLite: the lock on the data folder admits one service at a time, so any other holder of
        # the lease has been killed and will not come back.
        self._alone = not database.dialect.many_services

    def taken(self) -> bool:
        """Take or renew it. Writes only where it is free, or half of its time is over."""
        with self._database.read() as connection:
            held, now = LeaseRepository(connection).get(self._name), database_now(connection)
        if held is not None and held.expires_at > now:
            if held.owner != self._owner:
                if not self._alone:
                    return False
            elif held.expires_at - now > timedelta(seconds=self._seconds / 2):
                return True
        with self._database.write() as connection:
            taken = LeaseRepository(connection).take(
                self._name, self._owner, self._seconds, from_the_dead=self._alone
            )
        return taken is not None

    def still_mine(self, connection: Connection) -> bool:
        """Within a write transaction, in which nobody else can take it: whether to go on. A process
        that stood still may have lost it since `taken`."""
        held = LeaseRepository(connection).get(self._name)
        return held is not None and held.owner == self._owner

    def release(self) -> None:
        """For the next one to take at once."""
        try:
            with self._database.write() as connection:
                LeaseRepository(connection).release(self._name, self._owner)
        except OperationalError as error:
            # It ends by itself; a service that stops does not wait for its database.
            _log.warning("the lease %s could not be given back: %s", self._name, error.orig)
