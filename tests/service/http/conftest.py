"""A real server on a socket around a small application, and raw connections to it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from driftscope_service.http.connection_limits import ConnectionLimits, Connections
from driftscope_service.http.protocol import limited_protocol

PATIENCE_S = 30.0


async def echo_length(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; /slow waits for a second before, /large says a lot."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    answer = b"x" * 50_000_000 if scope["path"] == "/large" else str(size).encode()
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@dataclass(frozen=True)
class Served:
    port: int
    connections: Connections

    @contextmanager
    def connect(self, source: str = "127.0.0.1") -> Iterator[socket.socket]:
        with socket.socket() as client:
            client.settimeout(PATIENCE_S)
            client.bind((source, 0))
            client.connect(("127.0.0.1", self.port))
            yield client

    def ask(self, text: bytes, source: str = "127.0.0.1") -> bytes:
        """Everything that comes back until the server closes."""
        with self.connect(source) as client:
            client.sendall(text)
            return read_all(client)

    def get(self, source: str = "127.0.0.1") -> bytes:
        return self.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", source)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.fixture(name="read_all")
def read_all_fixture() -> Callable[[socket.socket], bytes]:
    return read_all


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    @contextmanager
    def run(app: Any = echo_length, *, keep_alive: int = 5, **limits: Any) -> Iterator[Served]:
        connections = Connections(ConnectionLimits(**limits))
        config = uvicorn.Config(
            app,
            http=limited_protocol(connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=keep_alive,
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            deadline = time.monotonic() + PATIENCE_S
            while not server.started:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.01)
            try:
                yield Served(listener.getsockname()[1], connections)
            finally:
                server.should_exit = server.force_exit = True
                thread.join()

    return run
