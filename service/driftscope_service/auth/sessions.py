"""The table of sessions: what a browser's cookie stands for, with the key that opened it.

The cookie holds a random token, the table its hash. A session lives no longer than its key: each
request looks at both.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from driftscope_service.auth.store import ApiKey, key_of_row
from driftscope_service.store.tables import api_keys, sessions

#: A working day; afterwards the form asks again.
LASTS: Final = timedelta(hours=12)
#: 256 random bits cannot be guessed, so that a fast hash keeps them safe.
TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class OpenedSession:
    token: str = field(repr=False)  # for the cookie, and nowhere else
    expires_at: datetime


class SessionRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, key: ApiKey, now: datetime) -> OpenedSession:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        ends = now + LASTS
        if key.expires_at is not None:
            ends = min(ends, key.expires_at)
        self._connection.execute(
            insert(sessions).values(
                token_sha256=_hash(token), key_id=key.id, created_at=now, expires_at=ends
            )
        )
        return OpenedSession(token, ends)

    def key_of(self, token: str, now: datetime) -> ApiKey | None:
        """The key that opened it, in whatever state; None: there is no session, or it has ended."""
        if not _TOKEN.fullmatch(token):
            return None
        row = self._connection.execute(
            select(api_keys)
            .join(sessions, sessions.c.key_id == api_keys.c.id)
            .where(sessions.c.token_sha256 == _hash(token), sessions.c.expires_at > now)
        ).one_or_none()
        return None if row is None else key_of_row(row)

    def close(self, token: str) -> None:
        self._connection.execute(delete(sessions).where(sessions.c.token_sha256 == _hash(token)))

    def close_of_key(self, key_id: str) -> None:
        self._connection.execute(delete(sessions).where(sessions.c.key_id == key_id))

    def sweep(self, now: datetime) -> int:
        """How many had ended, and are gone."""
        return self._connection.execute(
            delete(sessions).where(sessions.c.expires_at <= now)
        ).rowcount


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()
