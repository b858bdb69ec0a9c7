"""One line of the log for each request, when it has been answered."""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service.http.log_format import REQUEST_STATE, one_line, redacted

_log = logging.getLogger("driftscope.requests")
#: Of the address: enough to tell what was asked for.
MAX_PATH_SHOWN: Final = 500
#: Status of a request without an answer, as nginx notes it: the client has left.
CLIENT_LEFT: Final = 499
_MS: Final = 1000
#: An orchestrator asks every few seconds, and Prometheus too: a page of the log would hold nothing
#: else. They are logged where they fail.
QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_FAILED: Final = 400


class RequestLog:
    """Below RequestId, above all that may refuse a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = CLIENT_LEFT

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The state is filled as the request goes on: whoever logs finds the key's id there.
        token = REQUEST_STATE.set(scope["state"])
        client = (scope.get("client") or ("-",))[0]
        path = _shown(scope)
        start = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            took_ms = round(_MS * (time.perf_counter() - start), 1)
            quiet = scope["path"] in QUIET and status < _FAILED
            about = {
                "client": client,
                "method": scope["method"],
                "path": path,
                "status": status,
                "ms": took_ms,
            }
            _log.log(
                logging.DEBUG if quiet else logging.INFO,
                "%s %s %s %d %.1f ms",
                *about.values(),
                extra=about,
            )
            REQUEST_STATE.reset(token)


def _shown(scope: Scope) -> str:
    """Decoded, so that no encoding hides a key from being taken out."""
    query = scope["query_string"].decode("latin-1")
    text = scope["path"] + (f"?{unquote(query)}" if query else "")
    return redacted(one_line(text)[: 2 * MAX_PATH_SHOWN])[:MAX_PATH_SHOWN]
