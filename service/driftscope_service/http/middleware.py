"""Middleware that refuses a request before it is read: its size, its host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import problem_response
from driftscope_service.http.problem_kinds import ProblemKind


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
