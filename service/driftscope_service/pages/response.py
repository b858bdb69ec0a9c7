"""Headers of every page, and its body as small as the browser takes it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Final

from fastapi import Request, Response

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # The canvas of a plot is saved as a data: image.
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Names of runs stand in the address. With no-referrer the browser would send a form of ours
    # with the Origin null, which the host guard refuses.
    "Referrer-Policy": "same-origin",
    # Numbers change with every step; a page that a browser kept would show old ones as new.
    "Cache-Control": "no-store",
}


#: Below it the header of gzip and the time outweigh what is saved.
LEAST_BYTES: Final = 1024
#: Levels above cost three times the time for 3 % on our pages.
LEVEL: Final = 5


def takes_gzip(request: Request) -> bool:
    codings = request.headers.get("accept-encoding", "").split(",")
    return any(coding.strip().lower().split(";")[0] == "gzip" for coding in codings)


def compressed(
    request: Request,
    body: bytes,
    media_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    every = {**(headers or {}), "Vary": "Accept-Encoding"}
    if len(body) >= LEAST_BYTES and takes_gzip(request):
        # Without the time of day, so that the same page has the same bytes.
        body = gzip.compress(body, LEVEL, mtime=0)
        every["Content-Encoding"] = "gzip"
    return Response(body, status, every, media_type)
