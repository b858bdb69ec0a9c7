"""`driftscope jobs …` against a service that requires keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_service.auth.key import KeyText, Scope, new_key
from driftscope_service.auth.service_call import ApiError
from driftscope_service.auth.store import KeyRepository
from driftscope_service.jobs.command import app


@pytest.fixture
def running(run_service: Any) -> Iterator[Any]:
    with run_service(require_keys=True) as running:
        yield running


@pytest.fixture
def key(running: Any) -> KeyText:
    text = new_key()
    with running.service.database.write() as connection:
        KeyRepository(connection).add(text, name="cli", scopes=[Scope.READ], expires_at=None)
    return text


def list_jobs(url: str) -> Result:
    return CliRunner().invoke(app, ["list", "--json", "--url", url])


def test_the_key_comes_from_the_environment(
    url: str, key: KeyText, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = list_jobs(url)
    assert isinstance(refused.exception, ApiError)
    assert "An API key is needed" in str(refused.exception)
    monkeypatch.setenv("DRIFTSCOPE_API_KEY", f" {key.token}\n")
    assert json.loads(list_jobs(url).stdout)["jobs"] == []


def test_text_that_is_no_key_is_not_sent(
    url: str, key: KeyText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_API_KEY", key.token[:-1])
    refused = list_jobs(url)
    assert isinstance(refused.exception, ApiError)
    assert "holds no API key" in str(refused.exception)
    assert key.secret[:-1] not in str(refused.exception)
