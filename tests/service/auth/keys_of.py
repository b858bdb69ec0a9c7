"""Keys of a service that runs, as tests of access make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from driftscope_service.auth.key import KeyText, Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.store.database import Database


def add_key(
    database: Database, *scopes: Scope, expires_in: timedelta | None = None, **own: Any
) -> KeyText:
    key = new_key()
    expires_at = None if expires_in is None else datetime.now(UTC) + expires_in
    with database.write() as connection:
        KeyRepository(connection).add(key, name="test", scopes=scopes, expires_at=expires_at, **own)
    return key


def bearer(key: KeyText) -> dict[str, str]:
    return {"authorization": f"Bearer {key.token}"}
