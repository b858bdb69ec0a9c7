"""DELETE of runs and steps: the database, the disk, and what was on its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select, update

from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.store import tables


def rows(running: Any) -> int:
    """Of every table that a run has rows in."""
    every = (tables.runs, tables.steps, tables.shards, tables.attempts, tables.run_tags)
    with running.service.database.read() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in every
        )


def test_a_run_is_gone_with_its_files_and_marks(
    running: Any, pushing: Any, eventually: Any, caplog: Any
) -> None:
    client = pushing.client
    for step in range(3):
        pushing.push(pushing.body(seed=step), run="gone", step=step)
    pushing.push(pushing.body(seed=9), run="gone", step=9, params={"shard": 0, "shards": 2})
    client.put("/v1/runs/gone", json={"tags": ["a"], "note": "n", "pinned": True})
    eventually(lambda: len([name for name in pushing.files() if name.endswith(".parquet")]) == 3)
    eventually(lambda: len(pushing.files()) == 4)
    with caplog.at_level(logging.INFO, "driftscope"):
        answer = client.delete("/v1/runs/gone")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["steps"], answer.json()["files"]) == (3, 4)
    assert answer.json()["freed_bytes"] > 0
    [line] = [one.getMessage() for one in caplog.records if "deleted" in one.getMessage()]
    request = answer.headers["x-request-id"]
    assert line.startswith("deleted: run gone; steps 3, files 4, bytes ") and request in line
    assert pushing.files() == [] and rows(running) == 0
    for method in ("GET", "DELETE"):
        assert client.request(method, "/v1/runs/gone").status_code == 404
    assert client.get("/v1/runs/gone/steps/0").status_code == 404
    assert client.get("/metrics").status_code == 200


def test_another_run_is_untouched(pushing: Any) -> None:
    client = pushing.client
    for run in ("a", "b"):
        pushing.push(pushing.body(), run=run)
        client.put(f"/v1/runs/{run}", json={"tags": ["t"]})
    before = client.get("/v1/runs/b").json()
    client.delete("/v1/runs/a")
    assert client.get("/v1/runs/b").json() == before
    assert client.get("/v1/runs/b/steps/1").json()["tokens_kept"]


def test_the_baseline_goes_with_its_run(pushing: Any) -> None:
    client = pushing.client
    for run in ("first", "second", "other"):
        pushing.push(pushing.body(), run=run)
    for run in ("first", "second"):
        client.put(f"/v1/runs/{run}", json={"pinned": True})
    assert client.get("/v1/runs/other").json()["baseline"]["run"] == "second"
    client.delete("/v1/runs/second")
    assert client.get("/v1/runs/other").json()["baseline"]["run"] == "first"
    client.delete("/v1/runs/first")
    assert client.get("/v1/runs/other").json()["baseline"] is None


def test_a_step_leaves_the_series_and_may_come_again(
    running: Any, pushing: Any, eventually: Any
) -> None:
    client = pushing.client
    far = pushing.body(trainer_logprobs=pushing.tensors()["rollout_logprobs"] - 3)
    pushing.push(pushing.same(1), step=1)
    pushing.push(pushing.same(2), step=2)
    pushing.push(far, step=3)
    worst = client.get("/v1/runs/r").json()
    assert (worst["last_step"], worst["crossed_limits"] > 0) == (3, True)
    # The drift is remembered: it must not answer for the steps of before.
    assert client.get("/v1/runs/r/steps").json()["drift"]["steps"] == 3
    with running.service.database.read() as connection:
        revision = RunRepository(connection).get("r").revision  # type: ignore[union-attr]
    eventually(lambda: [name[-8:] for name in pushing.files()] == [".parquet"] * 3)
    assert client.delete("/v1/runs/r/steps/3").json()["steps"] == 1
    assert len(pushing.files()) == 2
    left = client.get("/v1/runs/r").json()
    assert (left["steps"], left["last_step"], left["crossed_limits"]) == (2, 2, 0)
    assert left["verdict"]["verdict"] == "bitwise_equal"
    with running.service.database.read() as connection:
        after = RunRepository(connection).get("r")
    assert after is not None and after.revision > revision
    # A counter of what came in does not fall.
    assert after.compared_tokens == 3 * 18
    assert client.delete("/v1/runs/r/steps/3").status_code == 404
    assert client.get("/runs/r").status_code == 200
    assert pushing.push(pushing.same(3), step=3).status_code == 201
    series = client.get("/v1/runs/r/steps").json()
    assert [step["step"] for step in series["steps"]] == [1, 2, 3]
    assert series["steps"][2]["crossed_limits"] == []


def test_the_last_step_of_a_run_leaves_an_empty_run(pushing: Any) -> None:
    pushing.push(pushing.body(), step=4)
    assert pushing.client.delete("/v1/runs/r/steps/4").status_code == 200
    left = pushing.client.get("/v1/runs/r").json()
    assert (left["steps"], left["last_step"], left["verdict"]) == (0, None, None)
    assert pushing.files() == []
    assert pushing.client.get("/runs/r").status_code == 200
    assert pushing.client.get("/runs").status_code == 200


def test_an_open_step_is_deleted_with_its_shards(pushing: Any) -> None:
    shard = {"shard": 0, "shards": 2}
    pushing.push(pushing.body(), params=shard)
    answer = pushing.client.delete("/v1/runs/r/steps/1").json()
    assert (answer["steps"], answer["files"]) == (0, 1)
    assert pushing.files() == []
    other = pushing.push(pushing.body(seed=5), params=shard)
    assert other.json()["received"] == [0]


def test_a_step_of_an_earlier_attempt(running: Any, pushing: Any) -> None:
    """Attempt 1 had steps 1 and 2, of which 2 came again in attempt 2."""
    client = pushing.client
    for step in (1, 2):
        pushing.push(pushing.same(step), step=step)
    with running.service.database.write() as connection:
        steps = tables.steps
        old = connection.execute(select(steps).where(steps.c.step == 2)).one()._mapping
        gone = {"kept_bytes": 0, "raw_files": None, "tokens_file": None, "superseded_by": 2}
        connection.execute(update(steps).where(steps.c.number == old["number"]).values(gone))
        new = {**old, "attempt": 2, "superseded_by": None}
        del new["number"]
        connection.execute(insert(steps).values(new))
        connection.execute(update(tables.runs).values(attempt=2))
    assert client.delete("/v1/runs/r/steps/2?attempt=3").status_code == 404
    assert client.delete("/v1/runs/r/steps/2?attempt=1").status_code == 200
    assert client.get("/v1/runs/r").json()["last_step"] == 2
    assert client.delete("/v1/runs/r/steps/2?attempt=1").status_code == 404
    assert client.delete("/v1/runs/r/steps/2").status_code == 200
    assert client.get("/v1/runs/r").json()["last_step"] == 1


@pytest.mark.parametrize("path", ["/v1/runs/r", "/v1/runs/r/steps/1", "/v1/runs/r/steps/x"])
def test_what_is_not_there(running: Any, path: str) -> None:
    assert running.client.delete(path).status_code in (404, 422)


def test_only_an_administrator_deletes(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        with running.service.database.write() as connection:
            RunRepository(connection).put("a", {})
            keys = KeyRepository(connection)
            texts = {}
            for scope in Scope:
                texts[scope] = new_key()
                keys.add(texts[scope], name=scope, scopes=[scope], expires_at=None)
        for scope, text in texts.items():
            headers = {"authorization": f"Bearer {text.token}"}
            answer = running.client.delete("/v1/runs/a", headers=headers)
            assert answer.status_code == (200 if scope is Scope.ADMIN else 403)


def test_uploads_under_way_end_first(
    pushing_at_url: Any, url: str, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Pushes and deletions of one run at once: nothing fails, and no file is left without a row."""
    pushing, answers = pushing_at_url, []
    pushing.push(pushing.body(seed=99), step=0)

    def push(seed: int) -> None:
        with httpx.Client(base_url=url, timeout=60.0) as client:
            for step in range(1, 6):
                answer = client.post(
                    f"/v1/runs/r/steps/{step}/logprobs",
                    content=pushing.body(seed=seed),
                    headers={"content-type": "application/vnd.safetensors"},
                )
                answers.append(answer.status_code)

    pushers = [threading.Thread(target=push, args=(7,)) for _ in range(2)]
    for one in pushers:
        one.start()
    deleted = set()
    while any(one.is_alive() for one in pushers):
        deleted.add(pushing.client.delete("/v1/runs/r").status_code)
    for one in pushers:
        one.join()
    assert set(answers) <= {200, 201} and len(answers) == 10
    assert 200 in deleted and deleted <= {200, 404}
    last = pushing.client.delete("/v1/runs/r").status_code
    assert last in (200, 404)
    eventually(lambda: pushing.nothing_left())


def test_said_twice_it_takes_nothing_of_an_older_attempt(running: Any, pushing: Any) -> None:
    """A retry after a timeout must not reach the copies that the series has left."""
    for seed in (1, 2, 3):
        assert pushing.push(pushing.body(seed=seed), step=5).status_code == 201
    path = "/v1/runs/r/steps/5"
    assert pushing.client.delete(path).status_code == 200
    assert pushing.client.delete(path).status_code == 404
    kept = pushing.client.get("/v1/runs/r/attempts").json()["attempts"]
    assert [one["steps"] for one in kept] == [1, 1, 0]
    assert pushing.client.delete(path, params={"attempt": 1}).status_code == 200


def test_the_page_of_a_step_outside_the_series_deletes_that_one(pushing: Any) -> None:
    """Step 5 of attempt 1 gave way, and attempt 2 has none: its page shows the old one."""
    html = {"accept": "text/html"}
    assert pushing.push(pushing.body(seed=1), step=5).status_code == 201
    opened = pushing.client.post("/v1/runs/r/attempts", json={"id": "again", "resumed_from": 4})
    assert opened.status_code == 201
    path = "/runs/r/steps/5/delete"
    form = pushing.client.get(path, headers=html)
    assert form.status_code == 200 and f'action="{path}?attempt=1"' in form.text
    origin = {"origin": str(pushing.client.base_url).rstrip("/"), **html}
    gone = pushing.client.post(f"{path}?attempt=1", headers=origin, follow_redirects=False)
    assert gone.status_code == 303, gone.text[:300]
    assert pushing.client.get(path, headers=html).status_code == 404
