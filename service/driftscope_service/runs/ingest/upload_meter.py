"""Counts of uploads by result, and their families on /metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import PROBLEM
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, collected, one

PUSH_PATH: Final = re.compile(r"/v1/runs/[^/]*/steps/[^/]*/(logprobs|complete)")
#: From a small step over loopback to a large one that waits for an analysis process.
DURATION_EDGES_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
REASONS: Final = frozenset(kind.slug for kind in problem_kinds.KINDS)
#: An answer that is not one of our problems, or that never came.
UNKNOWN: Final = problem_kinds.INTERNAL_ERROR.slug
_RESULTS: Final = {200: "known", 201: "accepted"}


class UploadCounts:
    """Since the service started. Every result and reason from the start, at 0: the first one of a
    kind is an increase."""

    def __init__(self) -> None:
        self._results = _counter(metric_names.INGEST_REQUESTS)
        self._reasons = _counter(metric_names.INGEST_REFUSED)
        for result in metric_names.INGEST_RESULTS:
            self._results.labels(result)
        for reason in REASONS:
            self._reasons.labels(reason)
        self.received = _counter(metric_names.INGEST_BYTES)
        self.in_flight = Gauge(metric_names.INGEST_IN_FLIGHT.name, "", registry=None)
        self._durations = Histogram(
            metric_names.INGEST_DURATION.name, "", buckets=DURATION_EDGES_S, registry=None
        )

    def end(self, result: str, reason: str | None, took_s: float) -> None:
        self._results.labels(result).inc()
        if reason is not None:
            self._reasons.labels(reason).inc()
        self._durations.observe(took_s)

    def families(self, limit: int) -> Iterator[Family]:
        yield collected(metric_names.INGEST_REQUESTS, self._results)
        yield collected(metric_names.INGEST_REFUSED, self._reasons)
        yield collected(metric_names.INGEST_BYTES, self.received)
        yield collected(metric_names.INGEST_IN_FLIGHT, self.in_flight)
        yield one(metric_names.INGEST_LIMIT, limit)
        yield collected(metric_names.INGEST_DURATION, self._durations)


def _counter(metric: metric_names.Metric) -> Counter:
    return Counter(metric.name, "", metric.labels, registry=None)


class UploadMeter:
    def __init__(self, app: ASGIApp, counts: UploadCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_push(scope):
            return await self._app(scope, receive, send)
        status: int | None = None

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._counts.received.inc(len(message.get("body", b"")))
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state = scope.setdefault("state", {})
        start = time.perf_counter()
        try:
            with self._counts.in_flight.track_inprogress():
                await self._app(scope, counted, noted)
        finally:
            result, reason = _outcome(status, state.get(PROBLEM))
            self._counts.end(result, reason, time.perf_counter() - start)


def _is_push(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and PUSH_PATH.fullmatch(scope["path"]) is not None
    )


def _outcome(status: int | None, problem: str | None) -> tuple[str, str | None]:
    if status in _RESULTS:
        return _RESULTS[status], None
    return "refused", problem if problem in REASONS else UNKNOWN
