"""Request bodies up to a size: a larger one is answered with 413, unread where it says its length.

Starlette's own limit answers in plain text, and this API answers in problem+json only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service import problem_kinds
from driftscope_service.errors import problem_response


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """In bytes, as they arrive."""

    default: int
    of_paths: Mapping[re.Pattern[str], int]  # of the whole path

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
