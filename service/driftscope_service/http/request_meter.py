"""Every request has an id and is counted; the families of the counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from driftscope_service.http.errors import REQUEST_ID_HEADER
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, collected


class RequestId:
    """Ours, never the client's: it must not let a client write into the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        identifier = f"req_{ULID()}"
        scope.setdefault("state", {})["request_id"] = identifier

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = identifier
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_id)


#: No such path, or refused before it was looked up: by host, key or length.
OTHER: Final = "other"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: From a read of the database to a push that waits for an analysis process; few, for there are as
#: many histograms as routes.
DURATION_EDGES_S: Final = (0.01, 0.05, 0.2, 1.0, 5.0, 20.0)
#: Status of a request without an answer: an error in the service, or the client has left.
NO_ANSWER: Final = 500


class RequestCounts:
    """Since the service started; routes without a request have no series yet."""

    def __init__(self) -> None:
        answers, durations = metric_names.HTTP_REQUESTS, metric_names.HTTP_DURATION
        self._answers = Counter(answers.name, answers.help, answers.labels, registry=None)
        self._durations = Histogram(
            *(durations.name, durations.help, durations.labels),
            buckets=DURATION_EDGES_S,
            registry=None,
        )

    def end(self, route: str, method: str, status: int, took_s: float) -> None:
        counted = method if method in METHODS else OTHER
        self._answers.labels(route, counted, f"{status // 100}xx").inc()
        self._durations.labels(route).observe(took_s)

    def families(self) -> Iterator[Family]:
        yield collected(metric_names.HTTP_REQUESTS, self._answers)
        yield collected(metric_names.HTTP_DURATION, self._durations)


class RequestMeter:
    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = NO_ANSWER

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            took_s = time.perf_counter() - start
            self._counts.end(_route(scope), scope["method"], status, took_s)


def _route(scope: Scope) -> str:
    """The router stores the matched route in the scope."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else OTHER
