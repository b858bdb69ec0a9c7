"""`driftscope runs …` against a live service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_probes.errors import RequestError
from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.service_call import ApiError
from driftscope_service.auth.store import KeyRepository
from driftscope_service.runs.command import app
from driftscope_service.runs.store.runs import RunRepository


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def client(running: Any) -> Any:
    running.client.put("/v1/runs/a", json={"model": "m"})
    return running.client


def test_the_listing_is_that_of_the_api(client: Any, url: str) -> None:
    listed = run("list", "--json", "--url", url)
    assert json.loads(listed.stdout) == client.get("/v1/runs").json()
    table = run("list", "--url", url).stdout
    assert "running" in table and "None" not in table


def test_a_run_is_finished(client: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("finish", "a", "--url", url)
    assert (done.exit_code, done.stdout) == (0, "a  finished  0 steps\n")
    known = client.get("/v1/runs/a").json()
    assert (known["state"], known["model"]) == ("finished", "m")
    assert "finished" in run("list", "--url", url).stdout
    monkeypatch.setenv("DRIFTSCOPE_RUN", "a")
    again = json.loads(run("finish", "--json", "--url", url).stdout)
    assert again["finished_at"] == known["finished_at"]


def test_a_mistyped_name_makes_no_run(client: Any, url: str) -> None:
    done = run("finish", "b", "--url", url)
    assert isinstance(done.exception, ApiError)
    assert "there is no run 'b'" in str(done.exception)
    assert client.get("/v1/runs/b").status_code == 404
    assert isinstance(run("finish", "../a", "--url", url).exception, RequestError)


def test_the_key_of_a_trainer_is_enough(
    run_service: Any, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    with run_service(require_keys=True) as running, serving(running) as address:
        with running.service.database.write() as connection:
            KeyRepository(connection).add(key, name="n", scopes=[Scope.INGEST], expires_at=None)
            RunRepository(connection).put("a", {})
        monkeypatch.setenv("DRIFTSCOPE_API_KEY", key.token)
        assert run("finish", "a", "--url", address).exit_code == 0
