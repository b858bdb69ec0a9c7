"""A stand-in for a vLLM server: a subclass says what its completions are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


class CompletionServer(ThreadingHTTPServer):
    request_queue_size = 256  # a batch connects at once
    daemon_threads = True
    model = "served"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    server: CompletionServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"data": [{"id": self.server.model}], "version": "0.32.0"})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._send(self.server.completion(json.loads(self.rfile.read(length))))

    def _send(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


Server = TypeVar("Server", bound=CompletionServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
