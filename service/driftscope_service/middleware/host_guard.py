"""Only callers of this machine: no page of another site may read or change anything.

A web page can point a name of its own at 127.0.0.1 (DNS rebinding): its requests then carry that
name as Host. It can also send simple requests to 127.0.0.1 itself: those carry its Origin.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from driftscope_service import problem_kinds
from driftscope_service.errors import problem_response
from driftscope_service.problem_kinds import ProblemKind

READING = ("GET", "HEAD", "OPTIONS")


class HostGuard:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := _refusal(scope)):
            response = problem_response(scope, *refusal)
            return await response(scope, receive, send)
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> tuple[ProblemKind, str] | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not _names_loopback(host):
        return problem_kinds.WRONG_HOST, f"the Host header is {host[:200]!r}"
    origin = headers.get("origin")
    if scope["method"] not in READING and origin is not None and _authority(origin) != host.lower():
        return problem_kinds.OTHER_ORIGIN, f"the Origin is {origin[:200]!r}"
    return None


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
