"""kill -9 of the real server: what was acknowledged is there, what was not has left nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from safetensors.numpy import load

from driftscope_service.runs.store.token_files import read_tokens

from ....service_process import service_process

ROOT = Path(__file__).parents[4]
PATIENCE_S = 60.0
SERVER = """
import sys
from driftscope_service.server import run_server
from driftscope_service.settings import load_settings
run_server(load_settings(port=0, data_dir=sys.argv[1]))
"""
Live = tuple["subprocess.Popen[bytes]", httpx.Client]

pytestmark = pytest.mark.usefixtures("clean_environment")


@contextmanager
def live_server(data_dir: Path) -> Iterator[Live]:
    roots = os.pathsep.join(str(ROOT / name) for name in ("service", "probes", "kernels"))
    command = [sys.executable, "-c", SERVER, str(data_dir)]
    with (
        service_process(command, {**os.environ, "PYTHONPATH": roots}) as started,
        httpx.Client(base_url=started.address, timeout=PATIENCE_S) as client,
    ):
        yield started.process, client
        started.process.kill()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)


def waited(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def push(client: httpx.Client, body: Any, step: int = 1, **options: Any) -> httpx.Response:
    headers = {"content-type": "application/vnd.safetensors"}
    path = f"/v1/runs/r/steps/{step}/logprobs"
    return client.post(path, content=body, headers=headers, **options)


def test_what_was_acknowledged_survives(tmp_path: Path, pushing_body: Any) -> None:
    data_dir, body = tmp_path / "data", pushing_body([50, 7])
    with live_server(data_dir) as (process, client):
        answer = push(client, body)
        assert answer.status_code == 201, answer.text
        receipt = push(client, body, 2, params={"shard": 0, "shards": 1})
        assert receipt.status_code == 201
        kill(process)
    with live_server(data_dir) as (process, client):
        found = client.get("/v1/runs/r/steps/1").json()
        assert found == answer.json()
        assert push(client, body).status_code == 200
        done = client.post("/v1/runs/r/steps/2/complete")
        assert done.json()["comparison"] == found["comparison"]
        # The conversion that the kill may have interrupted is made up for.
        waited(lambda: all(path.suffix == ".parquet" for path in data_dir.glob("steps/*")))
        kept = [read_tokens(path) for path in data_dir.glob("steps/*")]
    assert len(kept) == 2
    for step in kept:
        assert step.rollout.tobytes() == load(body)["rollout_logprobs"].tobytes()


def test_an_upload_that_a_kill_interrupts_leaves_nothing(tmp_path: Path, pushing_body: Any) -> None:
    data_dir, body = tmp_path / "data", pushing_body([100_000])
    with live_server(data_dir) as (process, client):
        workers = psutil.Process(process.pid).children(recursive=True)

        def killing() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            waited(lambda: list(data_dir.glob("incoming/*.part")))
            kill(process)
            yield body[len(body) // 2 :]

        with pytest.raises(httpx.TransportError):
            push(client, killing())
        # Their parent could not end them.
        waited(lambda: not any(map(alive, workers)))
    assert list(data_dir.glob("incoming/*"))
    with live_server(data_dir) as (process, client):
        assert list(data_dir.glob("incoming/*")) == list(data_dir.glob("steps/*")) == []
        assert client.get("/v1/runs").json()["runs"] == []
        assert push(client, body).status_code == 201


def test_a_stopped_service_leaves_no_process(tmp_path: Path, pushing_body: Any) -> None:
    with live_server(tmp_path / "data") as (process, client):
        assert push(client, pushing_body()).status_code == 201
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        process.terminate()
        assert process.wait(PATIENCE_S) is not None
        waited(lambda: not any(map(alive, workers)))


def test_kills_at_any_time_keep_every_promise(tmp_path: Path, pushing_body: Any) -> None:
    """Steps are pushed until the kill comes; whatever was answered with 201 is there."""
    data_dir, acknowledged = tmp_path / "data", 0
    # The last kill waits for an answer: on a busy machine the others may come before any.
    for delay_s, answers in ((0.0, 0), (0.03, 0), (0.11, 1)):
        with live_server(data_dir) as (process, client):
            killer = threading.Timer(0.3 + delay_s, kill, [process])
            assert push(client, pushing_body(), 10**6).status_code in (200, 201)
            with pytest.raises(httpx.TransportError):
                while True:
                    if acknowledged >= answers and killer.ident is None:
                        killer.start()
                    answer = push(client, pushing_body(seed=acknowledged), acknowledged)
                    assert answer.status_code in (200, 201), answer.text
                    acknowledged += 1
            killer.join()
    assert acknowledged
    with live_server(data_dir) as (_, client):
        for step in range(acknowledged):
            assert push(client, pushing_body(seed=step), step).status_code == 200
        found = client.get("/v1/runs/r").json()["steps"]
        # One more may have been stored and not answered any more.
        assert found in (acknowledged + 1, acknowledged + 2)
        # A conversion of tokens may be under way.
        waited(lambda: not list(data_dir.glob("incoming/*")))


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
