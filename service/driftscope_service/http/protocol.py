"""HTTP/1.1 on a connection, within limits: uvicorn's protocol around llhttp, and what it lacks.

Limits: bytes and number of header fields, time for a head to arrive, requests that wait behind one
another, and connections. Measured beside uvicorn's other protocol, h11 in pure Python, which has a
limit of headers itself: docs/adr/0003-http-server.md.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final

from ulid import ULID
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from driftscope_service.http import problem_kinds
from driftscope_service.http.connection_limits import Connections
from driftscope_service.http.errors import MEDIA_TYPE, REQUEST_ID_HEADER
from driftscope_service.http.problem_kinds import ProblemKind

#: Browsers no longer send requests before the last one is answered; libraries a handful at most.
MAX_PIPELINED: Final = 8
#: Colon, space and the end of the line.
FIELD_OVERHEAD: Final = 4
#: As long as an orchestrator's next try.
BUSY_RETRY_S: Final = 5
#: A client that takes nothing of an answer for so long is gone; it may be slow as it likes.
WRITE_TIMEOUT_S: Final = 60.0


class Refused(Exception):
    """Ends the reading of a request from within a callback of the parser."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class LimitedProtocol(HttpToolsProtocol):
    """Subclassed by `limited_protocol`, which sets `held`."""

    held: Connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self._limits = self.held.limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = True  # also before the first byte of one
        self._refusal: Refused | None = None
        self._field_bytes = self._fields = 0
        # Bytes since the parser last told of anything that is no head: a field that does not end.
        self._unseen = 0
        self._progress = False

    @property
    def idle(self) -> bool:
        return self._in_head and not self._answering

    @property
    def _answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def drop(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        refused = self.held.admit(self)
        if refused is not None:
            self._end(problem_kinds.TOO_MANY_CONNECTIONS, f"there are {refused} already")
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.held.leave(self)
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._start_timer()
        self._progress = False
        super().data_received(data)
        self._unseen = 0 if self._progress else self._unseen + len(data)
        if self._unseen > self._limits.header_bytes and not self.transport.is_closing():
            self._end(problem_kinds.HEADERS_TOO_LARGE, self._too_large)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.drop)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._field_bytes = self._fields = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head, and of a trailer after a chunked body."""
        self._fields += 1
        if self._fields > self._limits.header_fields:
            self._refuse(
                problem_kinds.HEADERS_TOO_LARGE,
                f"at most {self._limits.header_fields} header fields are accepted",
            )
        self._count(len(name) + len(value) + FIELD_OVERHEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._progress = True
        self._stop_timer()
        if [name for name, _ in self.headers].count(b"host") > 1:
            self._refuse(problem_kinds.MALFORMED_REQUEST, "there are two Host headers")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(
                problem_kinds.MALFORMED_REQUEST,
                f"more than {MAX_PIPELINED} requests wait for their answers",
            )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = self._in_head = True
        super().on_message_complete()

    # What ends a connection.

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for whatever the parser or a callback does not accept."""
        refusal = self._refusal or Refused(problem_kinds.MALFORMED_REQUEST, msg)
        self._end(refusal.kind, refusal.detail)

    @property
    def _too_large(self) -> str:
        return f"at most {self._limits.header_bytes} bytes of address and headers are accepted"

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > self._limits.header_bytes:
            self._refuse(problem_kinds.HEADERS_TOO_LARGE, self._too_large)

    def _refuse(self, kind: ProblemKind, detail: str) -> None:
        self._refusal = Refused(kind, detail)
        raise self._refusal

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.header_timeout_s, self._late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._answering:
            # The next head waits for this answer as well.
            self._start_timer()
            return
        seconds = self._limits.header_timeout_s
        self._end(problem_kinds.HEADERS_TIMEOUT, f"no whole head arrived in {seconds:g} seconds")

    def _end(self, kind: ProblemKind, detail: str) -> None:
        """With an answer, unless that would fall into another one."""
        self._stop_timer()
        if self._answering:
            self.transport.abort()
            return
        # A client that never reads must not keep the connection through what it does not take.
        self.transport.write(_answer(kind, detail))
        self.transport.close()


def limited_protocol(held: Connections) -> type[LimitedProtocol]:
    """The class for uvicorn's `http`: it makes one for each connection and gives it nothing."""
    return type("LimitedProtocolOfServer", (LimitedProtocol,), {"held": held})


def _answer(kind: ProblemKind, detail: str) -> bytes:
    """A request that never became one: no middleware answers it."""
    identifier = f"req_{ULID()}"
    body = json.dumps(
        {
            "type": kind.type,
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "request_id": identifier,
        }
    ).encode()
    fields = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Content-Type-Options": "nosniff",
        REQUEST_ID_HEADER: identifier,
    }
    if kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields["Retry-After"] = str(BUSY_RETRY_S)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    phrase = HTTPStatus(kind.status).phrase
    return f"HTTP/1.1 {kind.status} {phrase}\r\n{head}\r\n".encode("ascii") + body
