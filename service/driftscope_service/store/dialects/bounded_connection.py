"""A connection to PostgreSQL on which no wait is endless, whatever the other end does.

Time limits of the server end a statement that takes long. A server that hangs, or a proxy that
takes what is sent and never answers, ends nothing: here the client gives up and closes.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen

Answer = TypeVar("Answer")
#: Later than the server's own end of a statement.
ANSWER_WITHIN_S: Final = 20.0
#: How often the driver looks for an interrupt.
_INTERVAL_S: Final = 0.1


class BoundedConnection(psycopg.Connection[Any]):
    def wait(
        self, gen: PQGen[Answer], interval: float = _INTERVAL_S, timeout: float | None = None
    ) -> Answer:
        try:
            return super().wait(gen, interval, ANSWER_WITHIN_S if timeout is None else timeout)
        except errors._WaitTimeout:
            # Nobody knows what the server did; closed, the connection is not used again.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server did not answer within {ANSWER_WITHIN_S:g} seconds"
            ) from None
