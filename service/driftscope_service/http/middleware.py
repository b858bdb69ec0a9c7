"""ASGI middleware of every request: limits of host and body, request ids, meters."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import REQUEST_ID_HEADER, problem_response
from driftscope_service.http.problem_kinds import ProblemKind
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, collected


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """In bytes, as received."""

    default: int
    of_paths: Mapping[re.Pattern[str], int]  # matched against the whole path

    def of(self, path: str) -> int:
        for pattern, limit in self.of_paths.items():
            if pattern.fullmatch(path):
                return limit
        return self.default


class BodyLimit:
    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limits.of(scope["path"])
        if _declared_length(scope) > limit:
            response = problem_response(scope, problem_kinds.CONTENT_TOO_LARGE, _detail(limit))
            return await response(scope, receive, send)
        await self._app(scope, _counting(receive, limit), send)


def _counting(receive: Receive, limit: int) -> Receive:
    """A chunked body has no length to check before it is read."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _detail(limit))
        return message

    return counted


def _detail(limit: int) -> str:
    return f"at most {limit} bytes are accepted"


def _declared_length(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "0")
    return int(length) if length.isascii() and length.isdecimal() else 0


READING = ("GET", "HEAD", "OPTIONS")


class HostGuard:
    def __init__(
        self, app: ASGIApp, *, loopback_only: bool = True, allowed_hosts: Collection[str] = ()
    ) -> None:
        """allowed_hosts: lower-case names without port."""
        self._app = app
        self._loopback_only = loopback_only
        self._allowed_hosts = frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            response = problem_response(scope, *refusal)
            return await response(scope, receive, send)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[ProblemKind, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return problem_kinds.WRONG_HOST, f"the Host header is {host[:200]!r}"
        origin = headers.get("origin")
        changing = scope["method"] not in READING
        if changing and origin is not None and _authority(origin) != host.lower():
            return problem_kinds.OTHER_ORIGIN, f"the Origin is {origin[:200]!r}"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self._allowed_hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback_only


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


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
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = identifier
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
