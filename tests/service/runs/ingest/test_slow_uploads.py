"""Slow clients on real sockets do not keep the slots of uploads from others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from driftscope_service.http import body_pace
from driftscope_service.settings import Settings

HEAD = (
    "POST /v1/runs/slow/steps/{step}/logprobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/vnd.safetensors\r\nContent-Length: 10000000\r\n\r\n"
)


@contextmanager
def dripping(url: str, count: int, first: int) -> Iterator[list[socket.socket]]:
    """Uploads of `first` bytes at once, and then one byte after another."""
    place = urlsplit(url)
    assert place.hostname and place.port
    with ExitStack() as stack:
        clients = []
        for step in range(count):
            client = stack.enter_context(socket.create_connection((place.hostname, place.port)))
            client.sendall(HEAD.format(step=step).encode() + b"x" * first)
            clients.append(client)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.2):
                for client in clients:
                    try:
                        client.send(b"x")
                    except OSError:
                        continue

        thread = threading.Thread(target=drip)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield clients


def test_small_first_pieces_hold_no_slot(pushing_at_url: Any, url: str) -> None:
    with dripping(url, count=8, first=1000):
        for step in range(3):
            assert pushing_at_url.push(pushing_at_url.body(), step=step).status_code == 201


def test_slots_that_hardly_flow_are_taken(
    pushing_at_url: Any, url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_pace, "SLOW_AFTER_S", 0.3)
    pushing = pushing_at_url
    slots = Settings().max_concurrent_uploads
    with dripping(url, count=slots, first=200_000) as clients:
        eventually(lambda: len(pushing.incoming()) == slots)
        # Refused at first: what came at once counts for a while.
        eventually(lambda: pushing.push(pushing.body()).status_code == 201)
        answers = []
        for client in clients:
            client.settimeout(0.5)
            try:
                answers.append(client.recv(2000))
            except TimeoutError:
                continue
        # One of them, with a reason; the others go on until somebody needs their place.
        assert len(answers) == 1
        assert answers[0].startswith(b"HTTP/1.1 408") and b"waited for its place" in answers[0]
        assert len(pushing.incoming()) == slots - 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"upload_total_timeout_seconds": 1.0}, b"did not arrive within 1 seconds"),
        ({"upload_min_bytes_per_second": 100_000.0}, b"at least 100000 per second"),
    ],
)
def test_a_body_ends(
    run_service: Any,
    serving: Any,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, float],
    told: bytes,
) -> None:
    """Of a push and of every other route that reads a body."""
    monkeypatch.setattr(body_pace, "WINDOW_S", 1.0)
    with (
        run_service(**settings) as running,
        serving(running) as url,
        dripping(url, count=1, first=100_000) as (client,),
        httpx.Client(base_url=url, timeout=30) as other,
    ):
        client.settimeout(30)
        answer = client.recv(2000)
        assert answer.startswith(b"HTTP/1.1 408") and told in answer

        def slow() -> Iterator[bytes]:
            for _ in range(100):
                yield b" "
                time.sleep(0.1)

        try:
            late = other.put("/v1/runs/r", content=slow())
            assert late.status_code == 408
        except httpx.WriteError:
            pass  # it was answered and closed while this one was still sending
        assert other.get("/healthz").status_code == 200
