"""GET …/steps and …/steps/{step}: the series in pages, a choice of metrics, drift."""

from __future__ import annotations

import json
from typing import Any

import pytest

from driftscope_probes.drift import SERIES, StepValues, drift_of
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository

STEPS = (2**53 - 1, 5, 0, 7, 900)


@pytest.fixture
def stored(running: Any) -> list[int]:
    """Steps without tokens, in the order of arrival; returns them ascending."""
    with running.service.database.write() as connection:
        runs, steps = RunRepository(connection), StepRepository(connection)
        run, _ = runs.put("r", {})
        for step in STEPS:
            series = {name: step / 2**60 for name in SERIES} | {"lag_mean": None}
            crossed = ["kl_k3"] if step == 7 else []
            new = NewStep(step, "0" * 64, 0, 1, [], 10, 2, {}, crossed, series, b'{"x":1}')
            steps.add(run.number, new)
            runs.step_completed(run.number, new)
    return sorted(STEPS)


@pytest.mark.parametrize("limit", [1, 2, 5, 10_000])
def test_pages_give_every_step_once_ascending(running: Any, stored: list[int], limit: int) -> None:
    found, after = [], -1
    while after is not None:
        query = {"limit": limit, "after": after}
        page = running.client.get("/v1/runs/r/steps", params=query).json()
        found += [point["step"] for point in page["steps"]]
        after = page["next_after"]
    assert found == stored


def test_a_point_has_the_series(running: Any, stored: list[int]) -> None:
    page = running.client.get("/v1/runs/r/steps").json()
    assert (page["run"], page["next_after"]) == ("r", None)
    point = next(point for point in page["steps"] if point["step"] == 7)
    assert set(point["values"]) == set(SERIES)
    assert point["values"]["lag_mean"] is None
    assert point["values"]["kl_k1"] == 7 / 2**60
    assert (point["crossed_limits"], point["tokens_kept"]) == (["kl_k3"], False)
    assert (point["tokens"], point["sequences"]) == (10, 2)


def test_a_choice_of_metrics(running: Any, stored: list[int]) -> None:
    page = running.client.get("/v1/runs/r/steps?metrics=kl_k3, kl_k1").json()
    assert list(page["steps"][0]["values"]) == ["kl_k3", "kl_k1"]


def test_drift_is_of_the_whole_run_and_follows_it(running: Any, stored: list[int]) -> None:
    def drift(**query: Any) -> Any:
        return running.client.get("/v1/runs/r/steps", params=query).json()["drift"]

    points = running.client.get("/v1/runs/r/steps").json()["steps"]
    found = drift_of([StepValues(point["step"], point["values"]) for point in points])
    expected = json.loads(json.dumps(found.to_dict()))
    assert drift() == drift(limit=1) == drift(after=2**53 - 1) == expected
    with running.service.database.write() as connection:
        runs, steps = RunRepository(connection), StepRepository(connection)
        run, _ = runs.put("r", {})
        new = NewStep(8, "0" * 64, 0, 1, [], 10, 2, {}, [], dict.fromkeys(SERIES, 9.0), b'{"x":1}')
        steps.add(run.number, new)
        runs.step_completed(run.number, new)
    assert drift() != expected


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": 0}, "query/limit"),
        ({"limit": 10_001}, "query/limit"),
        ({"after": -2}, "query/after"),
        ({"metrics": "kl_k3,nonsense"}, "query/metrics"),
        ({"metrics": ""}, "query/metrics"),
    ],
)
def test_a_wrong_parameter_is_pointed_at(running: Any, query: dict[str, Any], pointer: str) -> None:
    running.client.put("/v1/runs/r")
    answer = running.client.get("/v1/runs/r/steps", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_what_is_not_there(running: Any) -> None:
    assert running.client.get("/v1/runs/r/steps").status_code == 404
    running.client.put("/v1/runs/r")
    page = running.client.get("/v1/runs/r/steps").json()
    assert (page["steps"], page["next_after"]) == ([], None)
    assert running.client.get("/v1/runs/r/steps/1").status_code == 404


def test_an_open_step_is_no_step_yet(pushing: Any) -> None:
    pushing.push(pushing.body(), params={"shard": 0, "shards": 2})
    assert pushing.client.get("/v1/runs/r/steps").json()["steps"] == []
    assert pushing.client.get("/v1/runs/r/steps/1").status_code == 404


def test_a_pushed_step_is_in_the_series(pushing: Any) -> None:
    pushed = pushing.push(pushing.body()).json()
    (point,) = pushing.client.get("/v1/runs/r/steps").json()["steps"]
    assert point["values"] == {name: pushed["comparison"].get(name) for name in SERIES}
    assert point["received_at"] == pushed["received_at"]
    assert point["crossed_limits"] == [limit["metric"] for limit in pushed["crossed_limits"]]
