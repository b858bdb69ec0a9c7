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
    answer = running.client.put("/v1/runs/r", content=b'{"model": "x"}' + b" " * 2**16)
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
    # What is there already, and a description, do not count as news of the training.
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


def test_marks_replace_and_are_no_news(running: Any) -> None:
    client = running.client
    client.put("/v1/runs/a", json={"model": "m"})
    client.put("/v1/runs/b", json={"model": "m"})
    before = client.get("/v1/runs/a").json()
    marks = {"tags": ["z", "a", "z"], "note": "lr 3e-6,\nsecond try"}
    after = client.put("/v1/runs/a", json=marks).json()
    assert (after["tags"], after["note"]) == (["a", "z"], marks["note"])
    assert after["updated_at"] == before["updated_at"]
    assert [run["run"] for run in client.get("/v1/runs").json()["runs"]] == ["b", "a"]
    assert client.put("/v1/runs/a", json={"tags": []}).json()["tags"] == []
    assert client.put("/v1/runs/a", json={"note": None}).json()["note"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"tags": ["a b"]},
        {"tags": ["a,b"]},
        {"tags": [""]},
        {"tags": ["x" * 65]},
        {"tags": [str(number) for number in range(17)]},
        {"tags": None},
        {"note": "x" * 4001},
        {"note": "a\0b"},
        {"pinned": None},
        {"pinned": True},  # without a model
    ],
)
def test_marks_that_are_not_accepted(running: Any, body: Any) -> None:
    running.client.put("/v1/runs/r", json={"tags": ["kept"], "engine": "e"})
    running.client.put("/v1/runs/r", json={"engine": "e"})
    before = running.client.get("/v1/runs/r")
    assert running.client.put("/v1/runs/r", json=body).status_code == 422
    assert running.client.get("/v1/runs/r").text == before.text


def test_a_mark_makes_no_run(running: Any) -> None:
    for body in ({"tags": ["a"]}, {"note": "n"}, {"pinned": True}):
        assert running.client.put("/v1/runs/mistyped", json=body).status_code == 404
    assert running.client.get("/v1/runs").json()["runs"] == []


def test_other_runs_are_held_against_the_baseline_of_their_model(pushing: Any) -> None:
    client = pushing.client
    same = pushing.tensors()["rollout_logprobs"]
    for run, gap in (("base", 0.01), ("worse", 0.04), ("equal", 0.0)):
        body = pushing.body(trainer_logprobs=same + same.dtype.type(gap))
        assert pushing.push(body, run=run).status_code == 201
    assert pushing.push(pushing.body(metadata={"model": "other"}), run="other").status_code == 201
    assert client.get("/v1/runs/worse").json()["baseline"] is None
    pinned = client.put("/v1/runs/base", json={"pinned": True}).json()
    assert (pinned["pinned"], pinned["baseline"]) == (True, None)
    held = client.get("/v1/runs/worse").json()["baseline"]
    assert held["run"] == "base" and held["page"] == "/compare?a=base&b=worse"
    assert held["abs_diff_mean_times"] == pytest.approx(4.0, rel=1e-3)
    assert client.get(held["page"]).status_code == 200
    listed = {run["run"]: run["baseline"] for run in client.get("/v1/runs").json()["runs"]}
    assert listed["worse"] == held and listed["other"] is None and listed["base"] is None
    assert listed["equal"]["abs_diff_mean_times"] == 0.0
    # Of several the one pinned last; nothing divides by a baseline of 0.
    client.put("/v1/runs/equal", json={"pinned": True})
    held = client.get("/v1/runs/worse").json()["baseline"]
    assert (held["run"], held["abs_diff_mean_times"]) == ("equal", None)
    client.put("/v1/runs/equal", json={"pinned": False})
    assert client.get("/v1/runs/worse").json()["baseline"]["run"] == "base"


def names(client: Any, **query: Any) -> list[str]:
    answer = client.get("/v1/runs", params=query)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page["matches"] == len(page["runs"])
    return [run["run"] for run in page["runs"]]


def test_a_list_is_filtered_and_sorted_by_its_address(pushing: Any) -> None:
    client = pushing.client
    far = pushing.tensors()["rollout_logprobs"] - 3
    pushing.push(pushing.same(), run="equal")
    pushing.push(pushing.body(trainer_logprobs=far), run="far")
    client.put("/v1/runs/equal", json={"engine": "vllm 0.32.0", "tags": ["prod", "a"]})
    client.put("/v1/runs/far", json={"note": "see the 50% drop", "labels": {"team": "rl"}})
    client.put("/v1/runs/far", json={"state": "finished"})
    far_verdict = client.get("/v1/runs/far").json()["verdict"]["verdict"]
    assert names(client, engine="vllm") == names(client, tag=["a", "prod"]) == ["equal"]
    assert names(client, text="50%") == names(client, text="team RL") == ["far"]
    assert names(client, verdict=["bitwise_equal"]) == names(client, state="running") == ["equal"]
    assert names(client, verdict=far_verdict, state=["finished", "stale"]) == ["far"]
    assert names(client, sort="worst") == ["far", "equal"] == names(client, sort="name")[::-1]
    assert names(client, model="", state="", tag="", cause="", since="", cursor="") == names(client)
    assert names(client, since="2020-01-01", until="2020-01-02") == []
    today = client.get("/v1/runs/far").json()["updated_at"][:10]
    assert set(names(client, since=today, until=today)) == {"far", "equal"}


@pytest.mark.parametrize(
    "query",
    [
        {"state": "gone"},
        {"verdict": "bad"},
        {"sort": "newest"},
        {"since": "yesterday"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"text": "x" * 201},
        {"tag": ["x"] * 17},
        {"limit": 501},
        {"metric": "kl_k3"},
        {"models": "m"},
    ],
)
def test_a_wrong_filter(running: Any, query: dict[str, Any]) -> None:
    assert running.client.get("/v1/runs", params=query).status_code == 422


@pytest.mark.parametrize("name", ["text", "tag"])
def test_a_filter_with_a_nul(running: Any, name: str) -> None:
    """Text that no database stores is refused before it is read."""
    assert running.client.get("/v1/runs", params={name: "a\0"}).status_code == 400


def test_a_cursor_belongs_to_its_order(running: Any) -> None:
    for name in "abc":
        running.client.put(f"/v1/runs/{name}", json={})
    page = running.client.get("/v1/runs", params={"limit": 1, "sort": "name"}).json()
    query = {"limit": 1, "cursor": page["next_cursor"]}
    following = running.client.get("/v1/runs", params={**query, "sort": "name"}).json()
    assert ([run["run"] for run in following["runs"]], following["matches"]) == (["b"], 3)
    refused = running.client.get("/v1/runs", params=query)
    assert refused.status_code == 422 and "order activity" in refused.text
