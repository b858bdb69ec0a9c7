"""Headers by which a browser keeps what it is shown to itself; on every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Where an answer says nothing else: pages and reports have policies of their own.
DEFAULTS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # For browsers that do not know frame-ancestors.
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
HSTS: Final = "Strict-Transport-Security"
#: Two years, as the preload lists ask. Without subdomains: those may belong to other programs.
HSTS_VALUE: Final = "max-age=63072000"


class SecurityHeaders:
    """Below whatever sets scope["scheme"] from a trusted proxy's header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
                # RFC 6797 section 7.2: not over plain HTTP, where anybody could have set it.
                if scope["scheme"] == "https":
                    headers.setdefault(HSTS, HSTS_VALUE)
            await send(message)

        await self._app(scope, receive, send_with_headers)
