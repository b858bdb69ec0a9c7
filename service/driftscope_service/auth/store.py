"""The table of API keys: who may do what until when. Secrets are not in it, only their hashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from driftscope_service.auth.key import KeyText, Scope
from driftscope_service.store.tables import api_keys

KeyState = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    name: str
    secret_sha256: str = field(repr=False)
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None  # to the hour
    revoked_at: datetime | None
    run_prefix: str | None = None  # None: every run
    requests_per_minute: int | None = None  # None: what the settings say
    max_concurrent: int | None = None  # requests at once; None: what the settings say
    replaced_by: str | None = None  # the key that it was rotated into

    def state(self, now: datetime) -> KeyState:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class KeyRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        text: KeyText,
        *,
        name: str,
        scopes: Iterable[Scope],
        expires_at: datetime | None,
        run_prefix: str | None = None,
        requests_per_minute: int | None = None,
        max_concurrent: int | None = None,
    ) -> None:
        self._connection.execute(
            insert(api_keys).values(
                id=text.id,
                name=name,
                secret_sha256=text.secret_sha256,
                scopes=sorted(set(scopes)),
                created_at=datetime.now(UTC),
                expires_at=expires_at,
                run_prefix=run_prefix,
                requests_per_minute=requests_per_minute,
                max_concurrent=max_concurrent,
            )
        )

    def rotate(self, old: ApiKey, text: KeyText, *, now: datetime, overlap: timedelta) -> None:
        """`text` becomes a key that may do what `old` may, and lasts as long as `old` was made for;
        `old` ends after `overlap`, or when it would have ended anyway."""
        lasts = None if old.expires_at is None else old.expires_at - old.created_at
        self.add(
            text,
            name=old.name,
            scopes=old.scopes,
            expires_at=None if lasts is None else now + lasts,
            run_prefix=old.run_prefix,
            requests_per_minute=old.requests_per_minute,
            max_concurrent=old.max_concurrent,
        )
        ends = now + overlap
        self._connection.execute(
            update(api_keys)
            .where(api_keys.c.id == old.id)
            .values(
                replaced_by=text.id,
                expires_at=ends if old.expires_at is None else min(ends, old.expires_at),
            )
        )

    def get(self, key_id: str) -> ApiKey | None:
        row = self._connection.execute(
            select(api_keys).where(api_keys.c.id == key_id)
        ).one_or_none()
        return None if row is None else key_of_row(row)

    def all(self) -> list[ApiKey]:
        """In order of creation; revoked and expired ones too."""
        rows = self._connection.execute(select(api_keys).order_by(api_keys.c.number))
        return [key_of_row(row) for row in rows]

    def any_active(self) -> bool:
        now = datetime.now(UTC)
        return any(key.state(now) == "active" for key in self.all())

    def revoke(self, key_id: str) -> ApiKey | None:
        """Permanent; the time of the first revocation stays. None if there is no such key."""
        self._connection.execute(
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=datetime.now(UTC))
        )
        return self.get(key_id)

    def used(self, key_id: str, at: datetime) -> None:
        self._connection.execute(
            update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=at)
        )


def key_of_row(row: Row[Any]) -> ApiKey:
    fields = dict(row._mapping)
    del fields["number"]
    scopes = frozenset(Scope(scope) for scope in fields.pop("scopes"))
    return ApiKey(scopes=scopes, **fields)
