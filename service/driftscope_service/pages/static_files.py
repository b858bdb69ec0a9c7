"""/static: style sheets, scripts and fonts of the pages, read from the package once.

Only names that were there at the start are answered, so that no path leads anywhere else.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter, Request, Response

from driftscope_service.http.errors import not_found
from driftscope_service.pages.response import LEAST_BYTES, takes_gzip

MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Asked for again each time, answered with 304: an upgrade never meets an old script.
CACHE_CONTROL: Final = "no-cache"
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    packed: bytes | None  # gzip, where it pays
    media_type: str
    etag: str


@router.get("/static/{path:path}")
def static_file(path: str, request: Request) -> Response:
    found = static_files().get(path)
    if found is None:
        raise not_found("file", path)
    headers = {"ETag": found.etag, "Cache-Control": CACHE_CONTROL, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    if found.packed is not None and takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        return Response(found.packed, headers=headers, media_type=found.media_type)
    return Response(found.body, headers=headers, media_type=found.media_type)


@cache
def static_files() -> dict[str, StaticFile]:
    root = files("driftscope_service") / "pages" / "static"
    return {name: _static_file(name, file.read_bytes()) for name, file in _walk(root, "")}


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _walk(entry, name + "/")
        elif _suffix(name) in MEDIA_TYPES:
            yield name, entry


def _static_file(name: str, body: bytes) -> StaticFile:
    packed = gzip.compress(body, mtime=0) if len(body) >= LEAST_BYTES else None
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return StaticFile(body, packed, MEDIA_TYPES[_suffix(name)], etag)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
