"""API keys as text."""

from __future__ import annotations

import hashlib

import pytest

from driftscope_service.auth.key import TOKEN_LENGTH, new_key, parse_key


def test_a_new_key_is_read_back() -> None:
    key = new_key()
    assert parse_key(key.token) == key
    assert len(key.token) == TOKEN_LENGTH
    assert len(bytes.fromhex(key.secret)) * 8 == 256


def test_keys_differ() -> None:
    keys = [new_key() for _ in range(100)]
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 100


def test_only_the_hash_is_compared() -> None:
    key, other = new_key(), new_key()
    assert key.secret_sha256 == hashlib.sha256(key.secret.encode()).hexdigest()
    assert key.matches(key.secret_sha256)
    assert not key.matches(other.secret_sha256)
    assert not key.matches(key.secret)


def test_the_secret_is_in_no_repr() -> None:
    key = new_key()
    assert key.secret not in repr(key) + str(key)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: token.replace("dsk_", "dsx_"),
        lambda token: token[:-1] + "\u0660",  # a digit, but not ASCII
        lambda token: token[:-1] + "\n",
        lambda token: " " + token[:-1],
        lambda token: "",
    ],
)
def test_other_text_is_no_key(change: object) -> None:
    assert callable(change)
    assert parse_key(change(new_key().token)) is None
