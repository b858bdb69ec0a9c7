"""Attempts: who names them, what the first push says, and what an older service makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.attempt import launch_id

Answer = tuple[int, dict[str, Any], dict[str, str]]
Connect = Callable[..., DriftscopeClient]
OPENED: Answer = (201, {"attempt": 2}, {})
PUSHED: Answer = (201, {"state": "complete", "step": 41}, {})
PATIENCE_S = 60.0


def problem(status: int) -> tuple[int, dict[str, Any], dict[str, str]]:
    return status, {"title": "no", "detail": "no", "status": status}, {}


def told(stub: Any) -> list[tuple[str, dict[str, str]]]:
    """Last part of the path and parameters of every request."""
    found = []
    for target, _, _ in stub.requests:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found.append((parts.path.rsplit("/", 1)[1], query))
    return found


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "DRIFTSCOPE_ATTEMPT"):
        monkeypatch.delenv(name, raising=False)


def test_the_first_push_opens_what_is_given(
    serve: Any, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(OPENED, PUSHED)
    client = connect(stub.url, attempt="job-7", resumed_from=40)
    for number in (41, 42):
        client.push_now(number, **step)
    attempt = {"attempt": "job-7"}
    assert told(stub) == [("attempts", {}), ("logprobs", attempt), ("logprobs", attempt)]
    body = json.loads(stub.requests[0][2])
    assert (body["id"], body["resumed_from"]) == ("job-7", 40)
    assert body["started_at"].endswith("+00:00")


@pytest.mark.parametrize(("first", "before"), [(41, 40), (1, 0), (0, None)])
def test_without_a_checkpoint_it_is_the_step_before(
    serve: Any, connect: Connect, step: dict[str, Any], first: int, before: int | None
) -> None:
    stub = serve(OPENED, PUSHED)
    connect(stub.url, attempt="a").push_now(first, **step)
    assert json.loads(stub.requests[0][2])["resumed_from"] == before


def test_nothing_is_opened_where_nothing_is_known(
    serve: Any, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(PUSHED)
    connect(stub.url).push_now(1, **step)
    assert told(stub) == [("logprobs", {})]


def test_an_older_service_is_pushed_to_as_before(
    serve: Any, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(problem(404), PUSHED)
    client = connect(stub.url, attempt="a")
    client.push_now(1, **step)
    client.push_now(2, **step)
    assert told(stub) == [("attempts", {}), ("logprobs", {}), ("logprobs", {})]


def test_an_attempt_that_is_gone_is_opened_again(
    serve: Any, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(OPENED, PUSHED, problem(404), OPENED, PUSHED)
    client = connect(stub.url, attempt="a")
    client.push_now(1, **step)
    client.push_now(2, **step)
    names = [name for name, _ in told(stub)]
    assert names == ["attempts", "logprobs", "logprobs", "attempts", "logprobs"]


def test_a_conflict_in_a_named_attempt_is_the_callers(
    serve: Any, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(OPENED, problem(409))
    with pytest.raises(DriftscopeError) as error:
        connect(stub.url, attempt="a").push_now(1, **step)
    assert error.value.status == 409 and len(stub.requests) == 2


def test_a_launcher_that_says_the_same_twice_is_told_apart_by_the_steps(
    serve: Any, connect: Connect, step: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "48213")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    stub = serve(OPENED, problem(409), PUSHED)
    client = connect(stub.url)
    client.push_now(41, **step)
    client.push_now(42, **step)
    name = {"attempt": "slurm-48213.0.0"}
    assert told(stub) == [
        *(("attempts", {}), ("logprobs", name)),
        *(("logprobs", {}), ("logprobs", {})),
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, None),
        (
            {
                "TORCHELASTIC_RUN_ID": "my job",
                "TORCHELASTIC_RESTART_COUNT": "2",
                "MASTER_PORT": "41237",
            },
            "torchrun-my_job-41237-2",
        ),
        ({"SLURM_JOB_ID": "9"}, None),
        ({"SLURM_JOB_ID": "9", "SLURM_STEP_ID": str(2**32 - 5)}, None),
        ({"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "3", "SLURM_RESTART_COUNT": "1"}, "slurm-9.3.1"),
    ],
)
def test_what_a_launcher_says(environment: dict[str, str], expected: str | None) -> None:
    assert launch_id(environment) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"attempt": "a b"},
        {"attempt": "x" * 129},
        {"attempt": 7},
        {"resumed_from": -1},
        {"resumed_from": 4.5},
    ],
)
def test_what_is_no_attempt(connect: Connect, given: dict[str, Any]) -> None:
    with pytest.raises(DriftscopeError, match="What to do"):
        connect("http://127.0.0.1:1", **given)


def test_shards_need_a_name_that_all_ranks_know(
    serve: Any, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stub = serve(PUSHED)
    client = connect(stub.url, strict=True, resumed_from=40)
    client.push_shard(41, 0, 2, **step)
    assert told(stub) == [("logprobs", {"shard": "0", "shards": "2"})]
    assert "resumed_from of run" in caplog.text and "attempt=" in caplog.text


def test_ranks_of_one_attempt_complete_their_step(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    def launch(name: str, values: float) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for rank in (0, 1):
            client = connect(running_service, run="ranks", strict=True, attempt=name,
                             on_result=answers.append)  # fmt: skip
            logprobs = np.full(6, values + rank, np.float32)
            client.push_shard(1, rank, 2, **{**step, "trainer_logprobs": logprobs})
        return answers

    first, second = launch("one", -1.0), launch("two", -3.0)
    assert [answer["state"] for answer in first] == ["open", "complete"]
    assert [answer["attempt"] for answer in (*first, *second)] == [1, 1, 2, 2]
    series = httpx.get(f"{running_service}/v1/runs/ranks/steps").json()["steps"]
    assert [(point["step"], point["attempt"]) for point in series] == [(1, 2)]


def test_a_numpy_step_is_a_step(serve: Any, connect: Connect, step: dict[str, Any]) -> None:
    stub = serve(OPENED, PUSHED)
    connect(stub.url, attempt="a", resumed_from=np.int64(4)).push_now(5, **step)
    assert json.loads(stub.requests[0][2])["resumed_from"] == 4
