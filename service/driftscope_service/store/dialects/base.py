"""The interface to a database system: what SQLAlchemy does not unify.

In: a connection. Out: transactions of which writers take turns and readers see one state.
"""

from __future__ import annotations

import json
from typing import Protocol

from sqlalchemy import Connection, Engine


class Dialect(Protocol):
    def __str__(self) -> str:
        """Names the database in messages, without a password."""
        ...

    def engine(self) -> Engine:
        """Opens nothing yet."""
        ...

    def begin(self, connection: Connection, *, write: bool) -> None:
        """What a transaction starts with; a writer waits here for the one before it."""
        ...

    @property
    def many_services(self) -> bool:
        """Whether several processes of the service may work on it at once."""
        ...

    def held_by_older(self, connection: Connection) -> bool:
        """Whether a service works on it that is too old to be in the table of instances."""
        ...

    def broken_references(self, connection: Connection) -> int:
        """Rows with dangling references, after a migration."""
        ...


def json_text(value: object) -> str:
    """NaN and infinity are not JSON; PostgreSQL refuses them, SQLite would keep them."""
    return json.dumps(value, allow_nan=False)
