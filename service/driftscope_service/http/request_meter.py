"""Every request has an id and is counted; the families of the counts."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from driftscope_service.http.errors import REQUEST_ID_HEADER
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family


class RequestId:
    """Ours, never the client's: a client cannot write into the log through it."""

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
#: Of a request without any answer: an error in the service, or nobody waits any more.
NO_ANSWER: Final = 500


@dataclass(frozen=True, slots=True)
class RouteDurations:
    counts: tuple[int, ...]  # up to each of DURATION_EDGES_S, then beyond
    sum_s: float


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """Since the service started."""

    answers: Mapping[tuple[str, str, str], int]  # by route, method, class of the status
    durations: Mapping[str, RouteDurations]  # by route


class RequestCounts:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, list[int]] = {}
        self._sums_s: defaultdict[str, float] = defaultdict(float)

    def end(self, route: str, method: str, status: int, took_s: float) -> None:
        known = method if method in METHODS else OTHER
        with self._lock:
            self._answers[route, known, f"{status // 100}xx"] += 1
            durations = self._durations.setdefault(route, [0] * (len(DURATION_EDGES_S) + 1))
            durations[bisect_left(DURATION_EDGES_S, took_s)] += 1
            self._sums_s[route] += took_s

    def totals(self) -> RequestTotals:
        with self._lock:
            durations = {
                route: RouteDurations(tuple(counts), self._sums_s[route])
                for route, counts in self._durations.items()
            }
            return RequestTotals(dict(self._answers), durations)


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
    """The router leaves what it found in the scope."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else OTHER


def request_families(totals: RequestTotals) -> Iterator[Family]:
    """Routes that nobody has asked for have no series yet."""
    requests = Family(metric_names.HTTP_REQUESTS)
    for labels, number in sorted(totals.answers.items()):
        requests.add(labels, number)
    durations = Family(metric_names.HTTP_DURATION)
    edges = (*DURATION_EDGES_S, math.inf)
    for route, known in sorted(totals.durations.items()):
        buckets = zip(edges, accumulate(known.counts), strict=True)
        durations.add_distribution([route], buckets, known.sum_s)
    yield requests
    yield durations
