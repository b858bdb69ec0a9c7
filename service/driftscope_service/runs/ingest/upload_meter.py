"""Counts of uploads by result, and their families on /metrics."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service.http import problem_kinds
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, one

PUSH_PATH: Final = re.compile(r"/v1/runs/[^/]*/steps/[^/]*/(logprobs|complete)")
#: From a small step over loopback to a large one that waits for an analysis process.
DURATION_EDGES_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
REASONS: Final = frozenset(kind.slug for kind in problem_kinds.KINDS)
#: A problem that cannot be read, or an answer that never came.
UNKNOWN: Final = problem_kinds.INTERNAL_ERROR.slug
_RESULTS: Final = {200: "known", 201: "accepted"}


@dataclass(frozen=True, slots=True)
class UploadTotals:
    """Since the service started."""

    results: Counter[str]  # accepted, known, refused
    reasons: Counter[str]  # of what was refused
    received_bytes: int  # as sent
    in_flight: int
    durations: tuple[int, ...]  # up to each of DURATION_EDGES_S, then beyond
    duration_sum_s: float


class UploadCounts:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._received_bytes = 0
        self._in_flight = 0
        self._durations = [0] * (len(DURATION_EDGES_S) + 1)
        self._duration_sum_s = 0.0

    def begin(self) -> None:
        with self._lock:
            self._in_flight += 1

    def received(self, size: int) -> None:
        with self._lock:
            self._received_bytes += size

    def end(self, result: str, reason: str | None, took_s: float) -> None:
        with self._lock:
            self._in_flight -= 1
            self._results[result] += 1
            if reason is not None:
                self._reasons[reason] += 1
            self._durations[bisect_left(DURATION_EDGES_S, took_s)] += 1
            self._duration_sum_s += took_s

    def totals(self) -> UploadTotals:
        with self._lock:
            return UploadTotals(
                self._results.copy(),
                self._reasons.copy(),
                self._received_bytes,
                self._in_flight,
                tuple(self._durations),
                self._duration_sum_s,
            )


class UploadMeter:
    def __init__(self, app: ASGIApp, counts: UploadCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_push(scope):
            return await self._app(scope, receive, send)
        answer = _Answer()

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._counts.received(len(message.get("body", b"")))
            return message

        async def noted(message: Message) -> None:
            answer.note(message)
            await send(message)

        start = time.perf_counter()
        self._counts.begin()
        try:
            await self._app(scope, counted, noted)
        finally:
            result, reason = answer.outcome()
            self._counts.end(result, reason, time.perf_counter() - start)


def _is_push(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and PUSH_PATH.fullmatch(scope["path"]) is not None
    )


class _Answer:
    """Its status, and the name of the problem where it is one."""

    def __init__(self) -> None:
        self._status: int | None = None
        self._body = b""

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif self._status is not None and self._status >= 400:
            # A problem is a few hundred bytes.
            self._body += message.get("body", b"")

    def outcome(self) -> tuple[str, str | None]:
        if self._status in _RESULTS:
            return _RESULTS[self._status], None
        return "refused", _reason(self._body)


def _reason(body: bytes) -> str:
    try:
        problem = json.loads(body)
    except ValueError:
        return UNKNOWN
    kind = problem.get("type") if isinstance(problem, dict) else None
    slug = kind.rsplit("/", 1)[-1] if isinstance(kind, str) else ""
    return slug if slug in REASONS else UNKNOWN


def ingest_families(totals: UploadTotals, limit: int) -> Iterator[Family]:
    """Every result and reason from the start, at 0: the first one of a kind is an increase."""
    results = Family(metric_names.INGEST_REQUESTS)
    for result in metric_names.INGEST_RESULTS:
        results.add([result], totals.results[result])
    reasons = Family(metric_names.INGEST_REFUSED)
    for reason in sorted(REASONS):
        reasons.add([reason], totals.reasons[reason])
    durations = Family(metric_names.INGEST_DURATION)
    edges = (*DURATION_EDGES_S, math.inf)
    counts = accumulate(totals.durations)
    durations.add_distribution([], zip(edges, counts, strict=True), totals.duration_sum_s)
    yield results
    yield reasons
    yield one(metric_names.INGEST_BYTES, totals.received_bytes)
    yield one(metric_names.INGEST_IN_FLIGHT, totals.in_flight)
    yield one(metric_names.INGEST_LIMIT, limit)
    yield durations
