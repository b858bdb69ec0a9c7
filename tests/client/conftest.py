"""A small real HTTP server that misbehaves on request, and steps to push to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from driftscope_client import DriftscopeClient
from driftscope_client.transport import RetryPolicy

PATIENCE_S = 30.0
AT_ONCE = RetryPolicy(attempts=3, first_wait_s=0.001)

#: (status, JSON body, headers) of an answer; "close": break the connection; "hang": never answer.
Answer: TypeAlias = "tuple[int, dict[str, Any], dict[str, str]] | str"
TAKEN: Answer = (201, {"state": "complete", "step": 1}, {})


class Stub:
    """What came in, and what goes out: the answers in turn, the last one for ever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.put_answer: Answer = (200, {"state": "finished"}, {})
        self.puts: list[tuple[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived = threading.Semaphore(0)
        self.released = threading.Event()
        self.url = ""

    def take(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait_for_requests(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE_S)


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.requests.append((self.path, dict(self.headers), body))
            answer = stub.take()
            stub.arrived.release()
            self._answer(answer)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            assert self.headers["Content-Type"] == "application/json"
            stub.puts.append((self.path, json.loads(body)))
            self._answer(stub.put_answer)

        def _answer(self, answer: Answer) -> None:
            if isinstance(answer, str):
                if answer == "hang":
                    stub.released.wait(PATIENCE_S)
                self.close_connection = True
                return
            status, value, headers = answer
            payload = json.dumps(value).encode()
            self.send_response(status)
            kind = "application/json" if status < 400 else "application/problem+json"
            for name, text in ({"Content-Type": kind} | headers).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Stub]]:
    started: list[tuple[Stub, ThreadingHTTPServer, threading.Thread]] = []

    def start(*answers: Answer) -> Stub:
        stub = Stub(list(answers) or [TAKEN])
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
        stub.url = f"http://127.0.0.1:{server.server_port}"
        # Polled often: shutdown() waits for the next poll.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((stub, server, thread))
        return stub

    yield start
    for stub, server, thread in started:
        stub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "API_KEY", "RUN"):
        monkeypatch.delenv(f"DRIFTSCOPE_{name}", raising=False)


@pytest.fixture
def connect() -> Iterator[Callable[..., DriftscopeClient]]:
    clients: list[DriftscopeClient] = []

    def make(url: str, **options: Any) -> DriftscopeClient:
        options = {"run": "r", "retry": AT_ONCE, **options}
        clients.append(DriftscopeClient(url, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close(timeout_s=0)


@pytest.fixture
def step() -> dict[str, Any]:
    random = np.random.default_rng(1)
    rollout = np.log(random.beta(3, 1, 6)).astype(np.float32)
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + np.float32(0.01),
        "cu_seqlens": np.array([0, 2, 6]),
        "token_ids": np.arange(6),
    }


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_port
    server.server_close()
    return port


@pytest.fixture
def mlflow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MLflow writes: plain files, without a server and without telling anybody."""
    folder = tmp_path / "mlruns"  # MLflow makes it, with its default experiment
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
    return folder


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Trackio writes: it reads its variable when imported, which may be long ago."""
    folder = tmp_path / "trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    import trackio.sqlite_storage
    import trackio.utils

    for module in (trackio.sqlite_storage, trackio.utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", folder)
    return folder
