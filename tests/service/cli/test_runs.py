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
from driftscope_service.runs.list_command import app
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


def rows(*arguments: str) -> list[list[str]]:
    listed = run("list", *arguments)
    assert listed.exit_code == 0, listed.output
    return [line.split("\t") for line in listed.stdout.splitlines()]


def test_a_list_takes_the_filters_of_the_api(client: Any, url: str) -> None:
    for name in ("b", "c-" + "x" * 120):
        client.put(f"/v1/runs/{name}", json={"engine": "vllm 0.32.0", "tags": ["t", name[0]]})
    client.put("/v1/runs/b", json={"note": "lr 3e-6", "state": "finished"})
    at = ("--url", url)
    # Whole however long they are: nothing of a name is cut.
    assert [row[0] for row in rows(*at, "--sort", "name")] == ["a", "b", "c-" + "x" * 120]
    for options, found in (
        (("--engine", "vllm", "--tag", "t", "--tag", "b"), ["b"]),
        (("--search", "LR 3e"), ["b"]),
        (("--state", "finished", "--state", "stale"), ["b"]),
        (("--model", "m"), ["a"]),
        (("--since", "2020-01-01", "--until", "2020-02-01"), []),
        (("--verdict", "bug_like"), []),
        (("--cause", "stale_weights"), []),
        (("--dtype", "bf16"), []),
        (("--framework", "trl"), []),
    ):
        assert [row[0] for row in rows(*at, *options)] == found, options
    first = run("list", *at, "--sort", "name", "--limit", "2")
    assert first.stderr.startswith("2 of 3 runs; more: --cursor ")
    cursor = first.stderr.split()[-1]
    assert [row[0][:2] for row in rows(*at, "--sort", "name", "--cursor", cursor)] == ["c-"]
    wrong = run("list", *at, "--state", "gone")
    assert isinstance(wrong.exception, ApiError) and "'running'" in str(wrong.exception)


def test_marks(client: Any, url: str) -> None:
    at = ("--url", url)
    assert run("tag", "a", "x", "y", *at).stdout == "a  tags: x y\n"
    assert run("tag", "a", "z", "x", *at).stdout == "a  tags: x y z\n"
    assert run("tag", "a", "x", "y", "z", "--remove", *at).stdout == "a  tags: none\n"
    assert run("note", "a", "two words", *at).stdout == "a  note: two words\n"
    assert json.loads(run("note", "a", "", "--json", *at).stdout)["note"] is None
    assert run("pin", "a", *at).stdout == "a  is the baseline of m\n"
    assert rows(*at)[0][-1] == "pinned"
    assert run("unpin", "a", *at).stdout == "a  is no baseline\n"
    for command in (("tag", "nobody", "x"), ("note", "nobody", "x"), ("pin", "nobody")):
        assert isinstance(run(*command, *at).exception, ApiError)
    assert client.get("/v1/runs/nobody").status_code == 404
    assert isinstance(run("tag", "a", "x,y", *at).exception, ApiError)


def test_nothing_is_deleted_without_a_word(pushing: Any, url: str, eventually: Any) -> None:
    pushing.push(pushing.body(), step=3)
    at = ("--url", url)
    for arguments, said in (
        (("delete", "r"), "run r with 1 step would be deleted for good; nothing was done."),
        (("delete", "r", "--step", "3"), "step 3 of run r would be deleted"),
        (("delete", "r", "--attempt", "1", "--yes"), "--attempt goes with a step"),
    ):
        refused = run(*arguments, *at)
        assert isinstance(refused.exception, RequestError) and said in str(refused.exception)
    assert pushing.client.get("/v1/runs/r/steps/3").status_code == 200
    gone = run("delete", "r", "--step", "3", "--yes", *at)
    assert gone.stdout.startswith("deleted step 3 of run r: 1 step, 1 file, ")
    assert run("delete", "r", "--yes", *at).stdout == "deleted run r: 0 steps, 0 files, 0 bytes\n"
    assert isinstance(run("delete", "r", "--yes", *at).exception, ApiError)
    # A conversion under way ends first, and takes its file with it.
    eventually(pushing.nothing_left)
