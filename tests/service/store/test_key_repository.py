"""The table of API keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from driftscope_service.auth.key import KeyText, Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.store.database import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def keys(database: Database) -> Iterator[KeyRepository]:
    with database.write() as connection:
        yield KeyRepository(connection)


def add(keys: KeyRepository, expires_at: datetime | None = None) -> KeyText:
    text = new_key()
    keys.add(text, name="a", scopes=[Scope.READ, Scope.INGEST, Scope.READ], expires_at=expires_at)
    return text


def test_what_is_kept(keys: KeyRepository) -> None:
    text = add(keys, NOW)
    key = keys.get(text.id)
    assert key is not None
    assert (key.name, sorted(key.scopes)) == ("a", [Scope.INGEST, Scope.READ])
    assert key.expires_at == NOW
    assert text.matches(key.secret_sha256)
    assert key.secret_sha256 not in repr(key)
    assert keys.all() == [key]
    assert keys.get("other") is None


def test_states(keys: KeyRepository) -> None:
    key = keys.get(add(keys, NOW).id)
    assert key is not None
    assert key.state(NOW - timedelta(seconds=1)) == "active"
    assert key.state(NOW) == "expired"
    revoked = keys.revoke(key.id)
    assert revoked is not None and revoked.state(NOW - timedelta(days=9)) == "revoked"


def test_revoking_again_changes_nothing(keys: KeyRepository) -> None:
    text = add(keys)
    assert keys.any_active()
    assert keys.revoke(text.id) == keys.revoke(text.id)
    assert not keys.any_active()
    assert keys.revoke("other") is None


def test_last_use(keys: KeyRepository) -> None:
    text = add(keys)
    keys.used(text.id, NOW)
    key = keys.get(text.id)
    assert key is not None and key.last_used_at == NOW


def test_rotation_hands_on_all_that_the_key_may(keys: KeyRepository) -> None:
    text, successor = new_key(), new_key()
    keys.add(
        text,
        name="a",
        scopes=[Scope.INGEST],
        expires_at=datetime.now(UTC) + timedelta(days=30),
        run_prefix="team-a-",
        requests_per_minute=7,
        max_concurrent=3,
    )
    old = keys.get(text.id)
    assert old is not None
    keys.rotate(old, successor, now=NOW, overlap=timedelta(hours=24))
    ended, new = keys.get(text.id), keys.get(successor.id)
    assert ended is not None and new is not None
    assert (ended.replaced_by, ended.expires_at) == (new.id, NOW + timedelta(hours=24))
    assert (new.name, new.scopes, new.run_prefix) == (old.name, old.scopes, "team-a-")
    assert (new.requests_per_minute, new.max_concurrent) == (7, 3)
    assert new.expires_at is not None
    assert abs(new.expires_at - NOW - timedelta(days=30)) < timedelta(seconds=5)
    assert successor.matches(new.secret_sha256) and not text.matches(new.secret_sha256)


def test_rotation_never_prolongs_a_key(keys: KeyRepository) -> None:
    ends = NOW + timedelta(hours=1)
    old = keys.get(add(keys, ends).id)
    assert old is not None
    keys.rotate(old, new_key(), now=NOW, overlap=timedelta(hours=24))
    kept = keys.get(old.id)
    assert kept is not None and kept.expires_at == ends
