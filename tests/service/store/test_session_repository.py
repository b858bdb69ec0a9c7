"""The table of sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.sessions import LASTS, SessionRepository
from driftscope_service.auth.store import ApiKey, KeyRepository
from driftscope_service.store.database import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add_key(database: Database, expires_at: datetime | None = None) -> ApiKey:
    text = new_key()
    with database.write() as connection:
        keys = KeyRepository(connection)
        keys.add(text, name="a", scopes=[Scope.READ], expires_at=expires_at)
        key = keys.get(text.id)
    assert key is not None
    return key


def test_from_its_opening_to_its_end(database: Database) -> None:
    key = add_key(database)
    with database.write() as connection:
        repository = SessionRepository(connection)
        opened = repository.open(key, NOW)
        assert opened.expires_at == NOW + LASTS
        assert opened.token not in repr(opened) and len(opened.token) == 43
        assert repository.key_of(opened.token, opened.expires_at - timedelta(seconds=1)) == key
        assert repository.key_of(opened.token, opened.expires_at) is None
        assert repository.key_of(opened.token[:-1] + "!", NOW) is None
        other = repository.open(key, NOW)
        assert other.token != opened.token
        repository.close(opened.token)
        assert repository.key_of(opened.token, NOW) is None
        assert repository.key_of(other.token, NOW) == key
        repository.close_of_key(key.id)
        assert repository.key_of(other.token, NOW) is None


def test_it_ends_with_its_key(database: Database) -> None:
    key = add_key(database, NOW + timedelta(minutes=5))
    with database.write() as connection:
        assert SessionRepository(connection).open(key, NOW).expires_at == key.expires_at


def test_those_that_have_ended_are_swept(database: Database) -> None:
    key = add_key(database)
    with database.write() as connection:
        repository = SessionRepository(connection)
        repository.open(key, NOW - LASTS)
        repository.open(key, NOW)
        assert repository.sweep(NOW) == 1
        assert repository.sweep(NOW) == 0
