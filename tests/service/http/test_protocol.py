"""What a client may do on a connection before the application hears of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from driftscope_service.http import protocol

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
LIMIT = 4096
CHUNK = 2**16


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head and b"Connection: close" in head
    found: dict[str, Any] = json.loads(body)
    assert found["request_id"].encode() in head
    return found


def test_a_request_within_the_limits(serve: Any) -> None:
    with serve(header_bytes=LIMIT) as served:
        body = b"x" * 1_000_000
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        answer = served.ask(head + b"Content-Length: 1000000\r\n\r\n" + body)
        assert status(answer) == 200 and answer.endswith(b"1000000")
        chunks = b"".join(b"a\r\n0123456789\r\n" for _ in range(5000)) + b"0\r\n\r\n"
        answer = served.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert status(answer) == 200 and answer.endswith(b"50000")


TOO_LARGE = {
    "one long field": HEAD + b"X: " + b"y" * LIMIT + b"\r\n\r\n",
    "one field that does not end": HEAD + b"X: " + b"y" * 2 * LIMIT,
    "a name that does not end": HEAD + b"y" * 2 * LIMIT,
    "many bytes in many fields": HEAD + b"".join(b"X%d: yyyyyyyyyy%s\r\n" % (i, b"y" * 90)
                                                   for i in range(50)) + b"\r\n",
    "many small fields": HEAD + b"a:b\r\n" * 101 + b"\r\n",
    "a long address": b"GET /" + b"y" * LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "an address that does not end": b"GET /" + b"y" * 2 * LIMIT,
}  # fmt: skip


@pytest.mark.parametrize("request_", TOO_LARGE.values(), ids=TOO_LARGE)
def test_heads_beyond_the_limit(serve: Any, request_: bytes) -> None:
    with serve(header_bytes=LIMIT) as served:
        answer = served.ask(request_)
        assert status(answer) == 431, answer
        assert problem(answer)["type"] == "/problems/headers-too-large"
        assert status(served.get()) == 200


@pytest.mark.parametrize("start", ["field", "fields", "trailer", "extension"])
def test_what_never_ends_is_cut(serve: Any, start: str) -> None:
    """However it is sent, little of it is taken."""
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    begin, piece = {
        "field": (HEAD + b"X: ", b"y" * CHUNK),
        "fields": (HEAD, b"X: y\r\n" * (CHUNK // 6)),
        "trailer": (chunked + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * (CHUNK // 6)),
        "extension": (chunked + b"1;", b"y" * CHUNK),
    }[start]
    sent = 0
    with serve(header_bytes=LIMIT) as served, served.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(begin)
            while sent < 100 * 2**20:
                client.sendall(piece)
                sent += len(piece)
        assert sent < 20 * 2**20  # what the system's buffers hold, and one read
        assert len(served.connections) == 0


def test_a_head_that_is_late(serve: Any, read_all: Callable[[socket.socket], bytes]) -> None:
    with serve(header_timeout_s=0.3) as served:
        for begin in (b"", b"\r\n", b"GET / HT", HEAD):
            with served.connect() as client:
                client.sendall(begin)
                assert problem(read_all(client))["type"] == "/problems/headers-timeout"


def test_a_head_that_drips(serve: Any) -> None:
    """Each byte would start an idle timeout anew."""
    with serve(header_timeout_s=0.5) as served, served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD)
        with pytest.raises(OSError):
            for _ in range(200):
                client.sendall(b"a")
                time.sleep(0.05)


def test_empty_lines_on_a_used_connection(
    serve: Any, read_all: Callable[[socket.socket], bytes]
) -> None:
    """They are no request, but end the keep-alive timeout."""
    with serve(header_timeout_s=0.3) as served, served.connect() as client:
        client.sendall(HEAD + b"\r\n")
        assert status(client.recv(CHUNK)) == 200
        client.sendall(b"\r\n")
        assert problem(read_all(client))["type"] == "/problems/headers-timeout"


def test_a_slow_answer_is_not_cut_by_the_next_head(
    serve: Any, read_all: Callable[[socket.socket], bytes]
) -> None:
    with serve(header_timeout_s=0.3) as served, served.connect() as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
        first = client.recv(CHUNK)
        assert status(first) == 200
        client.sendall(b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert status(read_all(client)) == 200


def test_idle_connections_are_closed(
    serve: Any, read_all: Callable[[socket.socket], bytes]
) -> None:
    with serve(keep_alive=1) as served, served.connect() as client:
        client.sendall(HEAD + b"\r\n")
        assert status(client.recv(CHUNK)) == 200
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_malformed_heads(serve: Any, head: bytes) -> None:
    with serve() as served:
        answer = served.ask(head)
        assert (status(answer), problem(answer)["type"]) == (400, "/problems/malformed-request")


def test_many_requests_that_do_not_wait(serve: Any) -> None:
    with serve() as served:
        request = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
        assert served.ask(request * 5000) == b""
        answered = served.ask(request * 3 + HEAD + b"Connection: close\r\n\r\n")
        assert answered.count(b"HTTP/1.1 200") == 4


def test_a_client_that_takes_nothing(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_S", 0.3)
    with serve() as served, served.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1) == b"H"  # it was taken, and is answered
        deadline = time.monotonic() + 30
        while len(served.connections):
            assert time.monotonic() < deadline, "it is still held"
            time.sleep(0.02)


def test_half_open_connections_take_nobodys_place(serve: Any) -> None:
    """Twenty times as many as are held: whoever says something is answered."""
    with serve(connections=20, per_address=10) as served:
        held = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
        try:
            assert status(served.get()) == 200
            assert status(served.get("127.0.0.2")) == 200
            assert len(served.connections) <= 10
        finally:
            for client in held:
                client.close()


def test_connections_that_are_answered_stay(serve: Any) -> None:
    """Nothing is idle: the next one of this address is refused, another address is not."""
    with serve(connections=20, per_address=3) as served:
        clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
        try:
            for client in clients:
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
            deadline = time.monotonic() + 30
            while any(held.idle for held in list(served.connections._held)):
                assert time.monotonic() < deadline
            while len(served.connections) < 3:
                assert time.monotonic() < deadline
            refused = served.get()
            assert status(refused) == 503
            assert problem(refused)["type"] == "/problems/too-many-connections"
            assert b"Retry-After" in refused
            assert status(served.get("127.0.0.2")) == 200
            for client in clients:
                client.sendall(b"x")
                assert status(client.recv(CHUNK)) == 200
        finally:
            for client in clients:
                client.close()
