"""Only callers that mean this service: no page of another site may read or change anything.

A web page can point a name of its own at our address (DNS rebinding): its requests then carry that
name as Host. It can also send simple requests to the address itself: those carry its Origin.

On loopback only loopback names pass. On another address any IP address passes as well, since a
page cannot point it elsewhere; names pass if the operator allowed them. Keys are required there
and no browser adds one by itself, so the guard is the second lock, not the first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from driftscope_service import problem_kinds
from driftscope_service.errors import problem_response
from driftscope_service.problem_kinds import ProblemKind

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
