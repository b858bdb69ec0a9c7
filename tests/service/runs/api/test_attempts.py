"""POST and GET …/attempts, and pushes with and without an attempt, over the API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save


def open_attempt(pushing: Any, id: str, **fields: Any) -> Any:
    return pushing.client.post("/v1/runs/r/attempts", json={"id": id, **fields})


def attempts(pushing: Any) -> list[dict[str, Any]]:
    answer = pushing.client.get("/v1/runs/r/attempts")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["attempts"]
    return found


def series(pushing: Any, **params: Any) -> dict[int, int]:
    """Attempt by step."""
    body = pushing.client.get("/v1/runs/r/steps", params=params).json()
    return {point["step"]: point["attempt"] for point in body["steps"]}


def run(pushing: Any) -> dict[str, Any]:
    found: dict[str, Any] = pushing.client.get("/v1/runs/r").json()
    return found


def test_an_attempt_makes_its_run_and_is_opened_once(pushing: Any) -> None:
    asked = {"started_at": "2026-11-29T19:00:00+01:00", "resumed_from": 40}
    first = open_attempt(pushing, "slurm-1.0", **asked)
    assert first.status_code == 201, first.text
    body = first.json()
    assert (body["attempt"], body["id"], body["resumed_from"]) == (1, "slurm-1.0", 40)
    assert (body["opened_by"], body["started_at"]) == ("client", "2026-11-29T18:00:00Z")
    assert (body["steps"], body["refused_steps"], body["last_refusal"]) == (0, 0, None)
    again = open_attempt(pushing, "slurm-1.0", resumed_from=3)
    assert (again.status_code, again.json()) == (200, body)
    assert pushing.client.get("/v1/runs/none/attempts").status_code == 404


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"id": ""}, "/id"),
        ({"id": "a b"}, "/id"),
        ({"id": "a" * 129}, "/id"),
        ({"id": "a", "resumed_from": -1}, "/resumed_from"),
        ({"id": "a", "started_at": "2026-11-29T19:00:00"}, "/started_at"),
        ({"id": "a", "other": 1}, "/other"),
        ({}, "/id"),
    ],
)
def test_what_is_no_attempt(pushing: Any, fields: dict[str, Any], pointer: str) -> None:
    answer = pushing.client.post("/v1/runs/r/attempts", json=fields)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert pushing.nothing_left()


def test_a_resumed_run_keeps_both_and_shows_the_newest(pushing: Any) -> None:
    for step in range(1, 6):
        assert pushing.push(pushing.same(step), step=step).status_code == 201
    opened = open_attempt(pushing, "two", resumed_from=3)
    assert opened.json()["attempt"] == 2
    assert series(pushing) == {1: 1, 2: 1, 3: 1}
    # The same bytes as before, and others: both are the new attempt's own.
    for step, seed in ((4, 4), (5, 50)):
        pushed = pushing.push(pushing.same(seed), step=step, params={"attempt": "two"})
        assert (pushed.status_code, pushed.json()["attempt"]) == (201, 2), pushed.text
        again = pushing.push(pushing.same(seed), step=step, params={"attempt": "two"})
        assert (again.status_code, again.json()) == (200, pushed.json())
    assert series(pushing) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2}
    assert series(pushing, attempt=1) == dict.fromkeys(range(1, 6), 1)
    older = pushing.client.get("/v1/runs/r/steps/5", params={"attempt": 1}).json()
    newer = pushing.client.get("/v1/runs/r/steps/5").json()
    assert (older["attempt"], older["superseded_by"]) == (1, 2)
    assert (newer["attempt"], newer["superseded_by"]) == (2, None)
    assert older["content_sha256"] != newer["content_sha256"]
    told = run(pushing)
    assert (told["steps"], told["received_steps"], told["attempt"]) == (5, 7, 2)
    assert (told["resumed"], told["last_step"]) == (True, 5)
    first, second = attempts(pushing)
    assert (first["steps"], first["last_step"], first["current_steps"]) == (5, 5, 3)
    assert (second["steps"], second["first_step"], second["current_steps"]) == (2, 4, 2)
    assert pushing.client.get("/v1/runs/r/steps?attempt=3").status_code == 404
    assert pushing.client.get("/v1/runs/r/steps/4?attempt=3").status_code == 404
    assert pushing.client.get(second["links"]["steps"]).json()["steps"][0]["step"] == 4


def test_a_conflict_within_an_attempt_is_refused_counted_and_said(pushing: Any) -> None:
    open_attempt(pushing, "one")
    of = {"attempt": "one"}
    assert pushing.push(pushing.body(), params=of).status_code == 201
    other = pushing.push(pushing.body(seed=1), params=of)
    assert other.status_code == 409
    assert other.json()["type"] == "/problems/step-conflict"
    assert "/v1/runs/r/attempts" in other.json()["remedy"]
    malformed = pushing.push(b"x", step=2, params=of)
    assert malformed.status_code == 400
    kind = pushing.push(b"x", step=3, headers={"content-type": "text/plain"})
    assert kind.status_code == 415
    (one,) = attempts(pushing)
    assert (one["steps"], one["refused_steps"]) == (1, 3)
    refusal = one["last_refusal"]
    assert (refusal["step"], refusal["problem"]) == (3, "unsupported-media-type")
    assert "text/plain" in refusal["reason"] and refusal["at"]
    assert run(pushing)["refused_steps"] == 3
    page = pushing.client.get("/metrics").text
    assert 'driftscope_run_refused_steps_total{run="r"} 3' in page
    assert 'driftscope_run_attempts{run="r"} 1' in page


def test_an_attempt_that_nobody_opened(pushing: Any) -> None:
    for known in (False, True):
        answer = pushing.push(pushing.body(), params={"attempt": "x"})
        assert answer.status_code == 404
        assert "POST /v1/runs/r/attempts" in answer.json()["remedy"]
        if not known:
            assert pushing.nothing_left()
            pushing.push(pushing.body())


def test_a_step_that_goes_back_opens_an_attempt(pushing: Any) -> None:
    """As clients of before push: without any attempt."""
    for step in range(1, 6):
        pushing.push(pushing.same(step), step=step)
    again = [pushing.push(pushing.same(step + 100), step=step).json() for step in (4, 5, 6)]
    assert [one["attempt"] for one in again] == [2, 2, 2]
    assert series(pushing) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}
    second = attempts(pushing)[1]
    assert (second["opened_by"], second["resumed_from"], second["id"]) == ("step", 3, None)
    # Started again once more, from before the first checkpoint.
    third = pushing.push(pushing.same(200), step=2).json()
    assert third["attempt"] == 3
    assert series(pushing) == {1: 1, 2: 3}
    # What the older attempt had is sent again by nobody, and is its own no more.
    late = pushing.push(pushing.same(4), step=4).json()
    assert late["attempt"] == 3
    assert run(pushing)["received_steps"] == 10


def test_a_late_step_of_an_old_attempt_is_kept_behind_the_newer(pushing: Any) -> None:
    open_attempt(pushing, "one")
    for step in (1, 2):
        pushing.push(pushing.same(step), step=step, params={"attempt": "one"})
    open_attempt(pushing, "two", resumed_from=1)
    late = pushing.push(pushing.same(3), step=3, params={"attempt": "one"})
    assert (late.status_code, late.json()["superseded_by"]) == (201, 2)
    assert series(pushing) == {1: 1}
    assert run(pushing)["last_step"] == 1
    # Behind the checkpoint nothing has given way: an attempt that sends it all the same has it.
    early = pushing.push(pushing.same(11), step=1, params={"attempt": "two"})
    assert (early.status_code, early.json()["superseded_by"]) == (201, None)
    assert series(pushing) == {1: 2}


def shard_of(pushing: Any, number: int, seed: int) -> bytes:
    tensors = pushing.tensors([4, 6], seed=10 * seed + number)
    return save({**tensors}, {"model": "m"})


def test_shards_of_ranks_that_go_back_meet_in_one_attempt(pushing: Any) -> None:
    def push(rank: int, seed: int, step: int = 1) -> Any:
        answer = pushing.push(
            shard_of(pushing, rank, seed), step=step, params={"shard": rank, "shards": 2}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    for rank in (0, 1):
        push(rank, 0)
    complete = "/v1/runs/r/steps/1/complete"
    assert pushing.client.post(complete).status_code == 201
    assert push(1, 1)["attempt"] == 2
    assert push(0, 1)["missing"] == []
    done = pushing.client.post(complete)
    assert (done.status_code, done.json()["attempt"]) == (201, 2)
    assert pushing.client.post(complete).json() == done.json()
    assert series(pushing) == {1: 2}
    # Of an open step as well: rank 0 has sent its share, and starts again.
    push(0, 2, step=2)
    assert push(0, 3, step=2)["attempt"] == 3
    assert push(1, 3, step=2)["received"] == [0, 1]
    assert pushing.client.post("/v1/runs/r/steps/2/complete").json()["attempt"] == 3


def test_ranks_of_a_named_attempt_open_it_at_once_and_late_shards_find_theirs(
    pushing_at_url: Any,
) -> None:
    pushing = pushing_at_url

    def push(rank: int, id: str, seed: int) -> Any:
        open_attempt(pushing, id, resumed_from=0)
        params = {"shard": rank, "shards": 4, "attempt": id}
        return pushing.push(shard_of(pushing, rank, seed), params=params)

    # Rank 3 of the first start is late: its second start is under way.
    assert {push(rank, "one", 1).status_code for rank in range(3)} == {201}
    work = [(3, "one", 1)] + [(rank, "two", 2) for rank in range(4)]
    with ThreadPoolExecutor(3) as pool:  # fewer than there are slots
        answers = list(pool.map(lambda one: push(*one), work))
    assert [answer.status_code for answer in answers] == [201] * 5
    assert [answer.json()["attempt"] for answer in answers] == [1, 2, 2, 2, 2]
    assert [one["id"] for one in attempts(pushing)] == ["one", "two"]
    for id, expected in (("two", (2, None)), ("one", (1, 2))):
        done = pushing.client.post("/v1/runs/r/steps/1/complete", params={"attempt": id})
        assert done.status_code == 201, done.text
        assert (done.json()["attempt"], done.json()["superseded_by"]) == expected
    assert series(pushing) == {1: 2}


def test_two_processes_that_push_the_same_steps_are_no_resumes(pushing: Any) -> None:
    answers = [
        [pushing.push(pushing.same(100 * process + step), step=step) for process in (0, 1)]
        for step in range(1, 9)
    ]
    second = [one.status_code for _, one in answers]
    assert [one.status_code for one, _ in answers] == [201] * 8
    assert second == [201, 201, 201, 409, 409, 409, 409, 409]
    refused = answers[-1][1].json()
    assert "more than one process" in refused["detail"] and "shard" in refused["remedy"]
    assert run(pushing)["attempt"] == 4 and run(pushing)["refused_steps"] == 5
    # A start from before that is one.
    assert pushing.push(pushing.same(999), step=6).json()["attempt"] == 5
    assert pushing.push(pushing.same(998), step=7).json()["attempt"] == 5


def test_a_run_that_crashes_at_the_same_step_again_and_again_loses_nothing(pushing: Any) -> None:
    pushing.push(pushing.same(1), step=1)
    for start in range(2, 9):
        assert pushing.push(pushing.same(100 * start), step=2).json()["attempt"] == start - 1
    assert run(pushing)["received_steps"] == 8
    assert series(pushing) == {1: 1, 2: 7}


def test_resumed_ranks_with_another_world_size(pushing: Any) -> None:
    first = pushing.push(shard_of(pushing, 0, 1), params={"shard": 0, "shards": 2})
    assert first.status_code == 201
    other = [
        pushing.push(shard_of(pushing, rank, 2), params={"shard": rank, "shards": 3})
        for rank in range(3)
    ]
    assert [one.json()["attempt"] for one in other] == [2, 2, 2]
    assert np.all(np.array(other[-1].json()["received"]) == [0, 1, 2])


def test_what_an_attempt_does_not_say_of_its_run_comes_from_a_step(pushing: Any) -> None:
    client = pushing.client
    client.post("/v1/runs/opened/attempts", json={"id": "a"}).raise_for_status()
    assert client.get("/v1/runs/opened").json()["model"] is None
    said = {"model": "m", "rollout_dtype": "bf16", "trainer_dtype": "fp32"}
    answer = pushing.push(
        pushing.body(metadata=said), run="opened", step=1, params={"attempt": "a"}
    )
    assert answer.status_code == 201
    run = client.get("/v1/runs/opened").json()
    assert {name: run[name] for name in said} == said
    # What is known stays: a run is described once.
    other = {**said, "model": "other"}
    pushing.push(pushing.body(metadata=other), run="opened", step=2, params={"attempt": "a"})
    assert client.get("/v1/runs/opened").json()["model"] == "m"
