"""The client's promise: whatever the service does, push() returns, never raises, and counts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.transport import START
from driftscope_probes.push import read_step

PATIENCE_S = 30.0
TAKEN: Any = (201, {"state": "complete", "step": 1}, {})
BUSY: Any = (
    503,
    {"title": "Busy", "detail": "later", "type": "/problems/busy"},
    {"Retry-After": "0"},
)
CONFLICT: Any = (
    409,
    {"title": "Step conflict", "detail": "other bytes", "type": "/p/c", "remedy": "rename the run"},
    {},
)
ROOT = Path(__file__).parents[2]
Connect = Callable[..., DriftscopeClient]
Serve = Callable[..., Any]


def test_a_step_arrives_as_it_was_given(
    serve: Serve, connect: Connect, step: dict[str, Any], tmp_path: Path
) -> None:
    stub = serve()
    answers: list[dict[str, Any]] = []
    client = connect(stub.url, api_key="dsk_a_b", run="my-run.1", on_result=answers.append)
    client.push(12, metadata={"model": "tiny", "temperature": 0.7}, **step)
    assert client.flush(PATIENCE_S)
    path, headers, body = stub.requests[0]
    assert path == "/v1/runs/my-run.1/steps/12/logprobs"
    assert headers["Authorization"] == "Bearer dsk_a_b"
    assert headers["Content-Type"] == "application/vnd.safetensors"
    assert headers["Content-Length"] == str(len(body))
    (tmp_path / "s.safetensors").write_bytes(body)
    arrived = read_step(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(arrived.rollout, step["rollout_logprobs"])
    assert arrived.metadata["temperature"] == "0.7"
    assert answers == [TAKEN[1]]
    assert (client.pushed, client.dropped, client.failed) == (1, 0, 0)


def test_a_hanging_service_costs_steps_and_nothing_else(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stub = serve("hang")
    client = connect(stub.url, queue_size=2)
    client.push(0, **step)
    stub.wait_for_requests(1)  # on its way before the queue is full
    for number in range(1, 6):
        client.push(number, **step)
    assert client.dropped == 4
    assert not client.flush(0.0)
    client.close(timeout_s=0.0)
    assert (client.dropped, client.failed) == (5, 1)  # the one that waited; the one on its way
    assert (
        "step 2 was dropped" in caplog.text and "has not answered the first of them" in caplog.text
    )
    assert "does not keep up" not in caplog.text
    assert "6 of 6 steps did not arrive" in caplog.records[-1].message
    client.push(9, **step)
    assert (client.pushes, client.dropped) == (7, 6)


def test_bytes_are_bounded_as_well_as_items(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    size = sum(np.asarray(tensor).nbytes for tensor in step.values())
    stub = serve("hang")
    client = connect(stub.url, queue_bytes=2 * size)
    for number in range(3):
        client.push(number, **step)
    assert client.dropped == 1
    connect(stub.url, queue_bytes=size - 1).push(0, **step)
    assert "bytes wait" in caplog.text


@pytest.mark.parametrize("answer", ["close", BUSY, CONFLICT, (500, {}, {}), (200, [1], {})])
def test_a_failing_service_is_counted(
    serve: Serve, connect: Connect, step: dict[str, Any], answer: Any
) -> None:
    stub = serve(answer)
    client = connect(stub.url)
    client.push(1, **step)
    client.push(2, **step)
    assert client.flush(PATIENCE_S)
    lost = (0, 2) if answer == CONFLICT else (2, 0)
    assert (client.pushed, client.failed, client.refused) == (0, *lost)
    assert isinstance(client.last_error, DriftscopeError)
    attempts = 3 if answer in ("close", BUSY) else 1
    assert len(stub.requests) == 2 * attempts


def test_no_service_at_all(
    connect: Connect, step: dict[str, Any], free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(f"http://127.0.0.1:{free_port}")
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    assert client.failed == 1
    assert "cannot be reached" in caplog.text and START in caplog.text
    with pytest.raises(DriftscopeError, match="cannot be reached") as error:
        client.push_now(1, **step)
    assert error.value.status is None


def test_a_passing_trouble_passes(serve: Serve, connect: Connect, step: dict[str, Any]) -> None:
    stub = serve("close", BUSY, TAKEN)
    client = connect(stub.url)
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed, client.dropped) == (1, 0, 0)
    assert len({body for _, _, body in stub.requests}) == 1 and len(stub.requests) == 3


def test_a_refusal_is_told_in_the_words_of_the_service(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(serve(CONFLICT).url)
    with pytest.raises(DriftscopeError) as error:
        client.push_now(1, **step)
    assert error.value.status == 409
    assert error.value.message == "Step conflict: other bytes."
    assert error.value.remedy == "rename the run"


def test_strict_raises(serve: Serve, connect: Connect, step: dict[str, Any]) -> None:
    client = connect(serve(TAKEN, CONFLICT).url, strict=True)
    client.push(1, **step)
    assert client.pushed == 1
    with pytest.raises(DriftscopeError, match="Step conflict"):
        client.push(2, **step)
    with pytest.raises(DriftscopeError, match="no cu_seqlens"):
        client.push(3, **{**step, "cu_seqlens": None})


def test_tensors_that_make_no_step_do_not_stop_the_training(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve().url)
    client.push(1, **{**step, "token_ids": np.arange(5)})
    client.push(2, **{**step, "tokens": np.arange(5)})
    client.push(3, **{**step, "entropy": torch.zeros(6, device="meta")})
    client.push(4, **step)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed) == (1, 3)
    assert "step 2 was not pushed" in caplog.text or "step 1 was not pushed" in caplog.text


def test_a_kept_error_keeps_no_tensors(
    connect: Connect, step: dict[str, Any], free_port: int
) -> None:
    client = connect(f"http://127.0.0.1:{free_port}")
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    link: BaseException | None = client.last_error
    assert link is not None and link.__cause__ is not None
    while link is not None:
        assert link.__traceback__ is None
        link = link.__cause__ or link.__context__


def test_a_failing_callback_does_not_stop_the_queue(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve().url, on_result=lambda answer: answer["absent"])
    client.push(1, **step)
    client.push(2, **step)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed) == (2, 0)
    assert isinstance(client.last_error, KeyError)
    assert "on_result raised KeyError for step 1" in caplog.text


def test_the_last_shard_completes_the_step(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve((201, {"missing": [1]}, {}), (201, {"missing": []}, {}), TAKEN)
    answers: list[dict[str, Any]] = []
    client = connect(stub.url, on_result=answers.append)
    client.push_shard(5, 0, 2, **step)
    client.push_shard(5, 1, 2, **step)
    assert client.flush(PATIENCE_S)
    assert [path for path, _, _ in stub.requests] == [
        "/v1/runs/r/steps/5/logprobs?shard=0&shards=2",
        "/v1/runs/r/steps/5/logprobs?shard=1&shards=2",
        "/v1/runs/r/steps/5/complete",
    ]
    assert answers == [{"missing": [1]}, TAKEN[1]]
    ranks = [safetensors.numpy.load(body)["rank"].tolist() for _, _, body in stub.requests[:2]]
    assert ranks == [[0, 0], [1, 1]]


def test_leaving_the_block_sends_what_waits(serve: Serve, step: dict[str, Any]) -> None:
    stub = serve()
    with DriftscopeClient(stub.url, run="r") as client:
        client.push(1, **step)
        client.push(2, **step)
    assert len(stub.requests) == client.pushed == 2
    client.close()


FINISHED = ("/v1/runs/r", {"state": "finished"})


def test_the_end_of_a_run_is_told_behind_its_steps(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve()
    client = connect(stub.url)
    client.push(1, **step)
    client.push(2, **step)
    assert client.finish()
    assert (len(stub.requests), stub.puts) == (2, [FINISHED])
    # It may go on, and end again.
    client.push(3, **step)
    assert client.finish()
    assert (len(stub.requests), stub.puts) == (3, [FINISHED] * 2)
    assert (client.pushed, client.failed, client.dropped) == (3, 0, 0)


def test_closing_tells_no_end(serve: Serve, step: dict[str, Any]) -> None:
    stub = serve()
    with DriftscopeClient(stub.url, run="r") as client:
        client.push(1, **step)
    assert stub.puts == []
    assert not client.finish()
    assert stub.puts == []


@pytest.mark.parametrize("answer", [(403, {"title": "no"}, {}), "close"])
def test_an_end_that_cannot_be_told(
    serve: Serve, connect: Connect, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stub = serve()
    stub.put_answer = answer
    client = connect(stub.url)
    assert not client.finish()
    assert isinstance(client.last_error, DriftscopeError)
    assert "does not know that run r has ended" in caplog.text
    with pytest.raises(DriftscopeError):
        connect(stub.url, strict=True).finish()


def test_the_end_waits_for_a_hanging_service_no_longer_than_told(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve("hang")
    client = connect(stub.url)
    client.push(1, **step)
    stub.wait_for_requests(1)
    begun = time.monotonic()
    assert not client.finish(timeout_s=0.2)
    assert time.monotonic() - begun < 5
    assert stub.puts == []


def test_the_environment_names_service_run_and_key(
    serve: Serve, step: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = serve()
    monkeypatch.setenv("DRIFTSCOPE_URL", stub.url + "/")
    monkeypatch.setenv("DRIFTSCOPE_RUN", "from-env")
    monkeypatch.setenv("DRIFTSCOPE_API_KEY", "dsk_x_y\n")
    with DriftscopeClient() as client:
        client.push_now(1, **step)
    path, headers, _ = stub.requests[0]
    assert path == "/v1/runs/from-env/steps/1/logprobs"
    assert headers["Authorization"] == "Bearer dsk_x_y"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "there is no run name"),
        ({"run": "a/b"}, "run name 'a/b'"),
        ({"run": "x" * 129}, "is not accepted"),
        ({"run": "r", "url": "ftp://x"}, "not an http or https URL"),
        ({"run": "r", "url": "http://[::1"}, "is not a URL"),
        ({"run": "r", "api_key": "dsk_ä"}, "the API key holds"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(DriftscopeError, match=told) as error:
        DriftscopeClient(**options)
    assert "dsk_ä" not in str(error.value)


def test_a_forked_child_has_a_queue_of_its_own(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve("hang")
    client = connect(stub.url, queue_size=1)
    client.push(1, **step)
    stub.wait_for_requests(1)
    stub.answers = [TAKEN]
    # The lock as it is while another thread holds it.
    with client._queue._changed:
        child = os.fork()
        if child == 0:
            client.push(2, **step)
            sent = client.flush(PATIENCE_S)
            os._exit(0 if sent and (client.pushed, client.dropped) == (1, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path for path, _, _ in stub.requests][1:] == ["/v1/runs/r/steps/2/logprobs"]


SCRIPT = """
import sys
from driftscope_client import DriftscopeClient
client = DriftscopeClient(sys.argv[1], run="r", close_timeout_s=float(sys.argv[2]))
client.push(1, rollout_logprobs=[[-1.0]], trainer_logprobs=[[-1.0]])
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(("answer", "patience"), [(TAKEN, 30), ("hang", 0)])
def test_at_exit_it_sends_what_waits_but_not_for_ever(
    serve: Serve, answer: Any, patience: int
) -> None:
    stub = serve(answer)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, stub.url, str(patience)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if answer == TAKEN:
        assert len(stub.requests) == 1


def test_many_threads_lose_nothing(serve: Serve, connect: Connect, step: dict[str, Any]) -> None:
    stub = serve()
    client = connect(stub.url, queue_size=100)

    def push_five(first: int) -> None:
        for number in range(first, first + 5):
            client.push(number, **step)

    threads = [threading.Thread(target=push_five, args=(first,)) for first in (0, 5, 10, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(PATIENCE_S)
    assert client.pushed == len({path for path, _, _ in stub.requests}) == 20
