"""/v1/runs: describing a run, the listing, and what a pushed step makes of it."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_run_is_made_then_changed(running: Any) -> None:
    client = running.client
    new = client.put("/v1/runs/a.b-c_1", json={"model": "m", "labels": {"team": "rl"}})
    assert new.status_code == 201
    assert new.headers["location"] == "/v1/runs/a.b-c_1"
    path = "/v1/runs/a.b-c_1"
    links = {"self": path, "steps": f"{path}/steps", "attempts": f"{path}/attempts"}
    assert new.json()["links"] == links
    assert (new.json()["steps"], new.json()["last_step"]) == (0, None)
    known = client.put("/v1/runs/a.b-c_1", json={"engine": "vllm"})
    assert known.status_code == 200
    assert (known.json()["model"], known.json()["engine"]) == ("m", "vllm")
    assert known.json()["labels"] == {"team": "rl"}
    assert known.json()["created_at"] == new.json()["created_at"]
    assert client.get("/v1/runs/a.b-c_1").json() == known.json()
    assert client.put("/v1/runs/a.b-c_1").status_code == 200
    assert client.put("/v1/runs/a.b-c_1", json={"model": None}).json()["model"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"model": "x" * 201},
        {"modle": "x"},
        {"labels": {str(number): "x" for number in range(17)}},
        {"labels": {"x": 1}},
        {"labels": None},
        {"model": 1},
        {"state": "done"},
        {"state": None},
        {"finished_at": "2026-11-28T12:00:00Z"},
        [],
    ],
)
def test_a_wrong_body_changes_nothing(running: Any, body: Any) -> None:
    assert running.client.put("/v1/runs/r", json=body).status_code == 422
    assert running.client.get("/v1/runs/r").status_code == 404


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "a%2Fb", "é", "a" * 129])
def test_a_wrong_name(running: Any, name: str) -> None:
    assert running.client.put(f"/v1/runs/{name}", json={}).status_code in (404, 405, 422)
    assert running.client.get("/v1/runs").json()["runs"] == []


def test_a_description_has_a_limit_of_its_own(running: Any) -> None:
    answer = running.client.put("/v1/runs/r", content=b'{"model": "x"}' + b" " * 2**14)
    assert answer.status_code == 413


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_give_every_run_once_latest_activity_first(running: Any, limit: int) -> None:
    client = running.client
    for name in ("a", "b", "c", "d", "a"):
        client.put(f"/v1/runs/{name}", json={})
    found, query = [], {"limit": limit}
    while True:
        page = client.get("/v1/runs", params=query).json()
        found += [run["run"] for run in page["runs"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == ["a", "d", "c", "b"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"cursor": "nonsense"}])
def test_a_wrong_parameter(running: Any, query: dict[str, Any]) -> None:
    assert running.client.get("/v1/runs", params=query).status_code == 422


def test_a_step_makes_its_run_from_its_metadata(pushing: Any) -> None:
    metadata = {"model": "m" * 300, "framework": "trl", "rollout_dtype": "bf16", "weights": "7"}
    assert pushing.push(pushing.body(metadata=metadata), step=7).status_code == 201
    run = pushing.client.get("/v1/runs/r").json()
    assert (run["framework"], run["rollout_dtype"], run["engine"]) == ("trl", "bf16", None)
    assert run["model"] == "m" * 200
    assert (run["steps"], run["last_step"]) == (1, 7)
    assert pushing.push(pushing.body(seed=1), step=3).status_code == 201
    run = pushing.client.get("/v1/runs/r").json()
    assert (run["steps"], run["last_step"], run["framework"]) == (2, 7, "trl")


def state(client: Any) -> tuple[str, str | None]:
    run = client.get("/v1/runs/r").json()
    return run["state"], run["finished_at"]


def test_a_run_ends_and_goes_on(pushing: Any) -> None:
    client = pushing.client
    assert pushing.push(pushing.body(), step=1).status_code == 201
    assert state(client) == ("running", None)
    ended = client.put("/v1/runs/r", json={"state": "finished"}).json()
    assert ended["state"] == "finished" and ended["finished_at"] >= ended["last_step_at"]
    # What is there already, and a description, are no news of the training.
    assert pushing.push(pushing.body(), step=1).status_code == 200
    client.put("/v1/runs/r", json={"engine": "vllm"})
    client.put("/v1/runs/r", json={"state": "finished"})
    assert state(client) == ("finished", ended["finished_at"])
    assert pushing.push(pushing.body(seed=1), step=2).status_code == 201
    assert state(client) == ("running", None)


def test_a_shard_and_a_word_open_a_run_again(pushing: Any) -> None:
    client = pushing.client
    client.put("/v1/runs/r", json={"model": "m"})
    client.put("/v1/runs/r", json={"state": "finished"})
    assert state(client)[0] == "finished"
    pushing.push(pushing.body(), run="r", params={"shard": 0, "shards": 2})
    assert state(client) == ("running", None)
    client.put("/v1/runs/r", json={"state": "finished"})
    client.put("/v1/runs/r", json={"state": "running"})
    assert state(client) == ("running", None)


def test_a_run_that_is_not_known_has_not_ended(running: Any) -> None:
    body = {"state": "finished", "model": "m"}
    assert running.client.put("/v1/runs/r", json=body).status_code == 404
    assert running.client.get("/v1/runs").json()["runs"] == []


def test_activity_moves_a_run_to_the_front(pushing: Any) -> None:
    for name in ("a", "b"):
        pushing.client.put(f"/v1/runs/{name}", json={})
    pushing.push(pushing.body(), run="a", params={"shard": 0, "shards": 2})
    runs = pushing.client.get("/v1/runs").json()["runs"]
    assert [run["run"] for run in runs] == ["a", "b"]
    assert runs[0]["steps"] == 0  # its step is open
