"""Every push ends in exactly one counter, whatever the service and the network do."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.outcomes import LEFT_AT_CLOSE, NO_ROOM, Outcomes
from driftscope_client.run_log import DTYPES as LIMITS_DEPEND_ON
from driftscope_client.transport import RetryPolicy

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[2]
AT_ONCE = RetryPolicy(attempts=2, first_wait_s=0.001)
TAKEN: Any = (201, {"state": "complete", "step": 1}, {})
ANSWERS: dict[str, Any] = {
    "taken": TAKEN,
    "conflict": (409, {"title": "Step conflict"}, {}),
    "no key": (401, {"title": "Unauthorized"}, {}),
    "broken": (500, {}, {}),
    "busy": (503, {"title": "Busy"}, {"Retry-After": "0"}),
    "close": "close",
}
GOOD = {"rollout_logprobs": [[-1.0]], "trainer_logprobs": [[-1.5]]}
DTYPES = dict.fromkeys(LIMITS_DEPEND_ON, "bf16")
Serve = Callable[..., Any]
Connect = Callable[..., DriftscopeClient]


def counted(client: DriftscopeClient) -> int:
    return client.pushed + client.refused + client.failed + client.dropped


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    answers=st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=8),
    malformed=st.sets(st.integers(0, 11)),
    pushes=st.integers(0, 12),
    queue_size=st.integers(1, 6),
    close_after=st.none() | st.integers(0, 12),
    hangs=st.booleans(),
)
def test_pushes_are_the_sum_of_the_counters(
    serve: Serve,
    answers: list[str],
    malformed: set[int],
    pushes: int,
    queue_size: int,
    close_after: int | None,
    hangs: bool,
) -> None:
    stub = serve(*(ANSWERS[answer] for answer in answers), *(["hang"] if hangs else []))
    client = DriftscopeClient(stub.url, run="r", queue_size=queue_size, retry=AT_ONCE)
    for number in range(pushes):
        if number == close_after:
            client.close(timeout_s=0.0)
        sides = GOOD | ({"mask": [[7]]} if number in malformed else {})
        client.push(number, metadata=DTYPES, **sides)
    if not hangs and close_after is None:
        assert client.flush(PATIENCE_S)
        assert counted(client) == pushes
    client.close(timeout_s=0.0)
    assert client.pushes == counted(client) == pushes
    stub.released.set()  # an answer that comes too late is counted by nobody
    client._queue.flush(PATIENCE_S)
    assert counted(client) == pushes


def test_a_push_ends_once_and_the_commonest_cause_comes_first() -> None:
    outcomes = Outcomes()
    tickets = [outcomes.begin() for _ in range(5)]
    assert outcomes.summary() is None  # they wait
    assert outcomes.end(tickets[0], "pushed")
    assert not outcomes.end(tickets[0], "failed", "too late")
    outcomes.end(tickets[1], "dropped", LEFT_AT_CLOSE)
    for ticket in tickets[2:]:
        outcomes.end(ticket, "dropped", NO_ROOM)
    assert outcomes.summary() == (
        "4 of 5 steps did not arrive: 4 dropped (3 no room in the queue, 1 still waiting when the "
        "client closed)."
    )
    assert outcomes.summary() is None  # it has been said


def test_many_threads_push_while_the_client_closes(serve: Serve) -> None:
    stub = serve()
    client = DriftscopeClient(stub.url, run="r", queue_size=3, retry=AT_ONCE)
    threads = [threading.Thread(target=lost, args=(client, 9)) for _ in range(4)]
    for thread in threads:
        thread.start()
    client.close()
    for thread in threads:
        thread.join()
    assert client.pushes == counted(client) == 36


def test_push_now_and_strict_pushes_count_as_well(serve: Serve, connect: Connect) -> None:
    client = connect(serve(TAKEN, ANSWERS["conflict"], ANSWERS["broken"]).url, strict=True)
    client.push_now(1, metadata=DTYPES, **GOOD)
    for _ in range(2):
        with pytest.raises(DriftscopeError):
            client.push(2, metadata=DTYPES, **GOOD)
    with pytest.raises(DriftscopeError, match="both sides"):
        client.push_now(3, rollout_logprobs=[[-1.0]], trainer_logprobs=None)
    assert (client.pushed, client.refused, client.failed, client.pushes) == (1, 1, 2, 4)


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dropping() -> Iterator[str]:
    """Takes connections and breaks them."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def drop() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=drop, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


def lost(client: DriftscopeClient, steps: int = 4) -> None:
    for number in range(steps):
        client.push(number, metadata=DTYPES, **GOOD)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ANSWERS["no key"], "HTTP 401, Unauthorized"),
        (ANSWERS["conflict"], "HTTP 409, Step conflict"),
        (ANSWERS["busy"], "HTTP 503, Busy"),
        (ANSWERS["broken"], "HTTP 500"),
        ("close", "connection broken"),
    ],
)
def test_the_log_names_what_the_service_did(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, answer: Any, told: str
) -> None:
    client = connect(serve(answer).url, queue_size=1)
    lost(client)
    client.close(timeout_s=PATIENCE_S)
    assert told in caplog.records[-1].message
    assert "4 of 4 steps did not arrive" in caplog.records[-1].message
    assert "keep up" not in caplog.text


def test_a_port_where_nothing_listens(
    connect: Connect, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(f"http://127.0.0.1:{free_port}", retry=RetryPolicy(), queue_size=2)
    lost(client, 12)
    client.close(timeout_s=0.5)  # far less than the retries take
    assert (client.pushes, client.dropped, client.failed) == (12, 11, 1)
    assert "cannot be reached: connection refused" in caplog.text
    last = caplog.records[-1].message
    assert "12 of 12 steps did not arrive: 1 failed (connection refused)" in last
    assert "keep up" not in caplog.text


def test_a_name_that_nobody_knows(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    client = connect("http://nobody.invalid")
    lost(client, 2)
    client.close(timeout_s=PATIENCE_S)
    assert "2 failed (host name unknown)" in caplog.records[-1].message


def test_a_service_that_never_answers(
    connect: Connect, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(silent, timeout_s=0.2, queue_size=2, retry=RetryPolicy(attempts=1))
    lost(client)
    assert client.flush(PATIENCE_S)
    client.close()
    assert "has not answered in 0.2 s" in caplog.text
    assert "2 failed (no answer in time); 2 dropped (no room in the queue)" in (
        caplog.records[-1].message
    )
    assert "keep up" not in caplog.text


def test_connections_that_break(
    connect: Connect, dropping: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(dropping)
    lost(client, 2)
    client.close(timeout_s=PATIENCE_S)
    assert "2 failed (connection broken)" in caplog.records[-1].message
    assert client.last_error is not None and "broke before the answer" in str(client.last_error)


def test_only_a_service_that_answers_does_not_keep_up(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    stub = serve(TAKEN, TAKEN, TAKEN, "hang")
    client = connect(stub.url, queue_size=4)
    lost(client, 4)
    stub.wait_for_requests(4)  # three of them have been answered, and the queue was never empty
    for number in range(4, 9):
        client.push(number, metadata=DTYPES, **GOOD)
    assert "answers, but does not keep up with the steps" in caplog.text


def test_nothing_is_said_where_every_step_arrived(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve().url)
    lost(client)
    client.close()
    assert client.pushed == 4 and not caplog.records


def test_finish_says_it_and_close_does_not_repeat_it(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(ANSWERS["conflict"]).url)
    lost(client, 3)
    client.finish()
    client.close()
    assert [r.message for r in caplog.records if "did not arrive" in r.message] == [
        r.message for r in caplog.records if "3 of 3 steps" in r.message
    ]
    assert caplog.text.count("did not arrive") == 1


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "no rollout_dtype and no trainer_dtype"),
        ({"trainer_dtype": "bf16"}, "no rollout_dtype, so only the loosest limits"),
        (DTYPES, None),
    ],
)
def test_unknown_dtypes_are_told_once(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    metadata: dict[str, str],
    told: str | None,
) -> None:
    client = connect(serve().url)
    for number in range(3):
        client.push(number, metadata=metadata, **GOOD)
    client.close()
    assert caplog.text.count("loosest limits") == (told is not None)
    assert told is None or told in caplog.text


SCRIPT = """
import sys
from driftscope_client import DriftscopeClient
client = DriftscopeClient(sys.argv[1], run="mine", close_timeout_s=float(sys.argv[2]), queue_size=2)
for step in range(12):
    client.push(step, rollout_logprobs=[[-1.0]], trainer_logprobs=[[-1.0]])
if sys.argv[3:]:
    client.close(timeout_s=0.1)
"""


@pytest.mark.parametrize("closed", [True, False])
def test_the_last_line_of_a_run_says_how_many_steps_did_not_arrive(
    free_port: int, closed: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"http://127.0.0.1:{free_port}", "0.3", *(["x"] * closed)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "run mine: 12 of 12 steps did not arrive" in done.stderr
    summary = done.stderr[done.stderr.index("run mine: 12 of 12") :]
    assert "connection refused" in summary.splitlines()[0]
    assert "keep up" not in done.stderr


def test_a_new_cause_is_told_at_once(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(ANSWERS["conflict"], ANSWERS["no key"]).url)
    with caplog.at_level(logging.WARNING):
        lost(client, 2)
        assert client.flush(PATIENCE_S)
    assert "Step conflict" in caplog.text and "Unauthorized" in caplog.text


def test_a_wait_between_attempts_ends_with_the_client(connect: Connect, free_port: int) -> None:
    client = connect(f"http://127.0.0.1:{free_port}", retry=RetryPolicy(first_wait_s=60.0))
    lost(client, 1)
    begun = time.monotonic()
    client.close(timeout_s=0.2)
    assert time.monotonic() - begun < 5
    assert client.failed == 1 and "connection refused" in str(client.last_error)
