"""Text that no database keeps and no log should see: NUL, lone surrogates, keys in addresses.

PostgreSQL has no NUL in text and no character outside Unicode; SQLite takes both. Refused here,
before any route: the same answer on both, and none that fails later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_probes.push.json_structure import marks_beyond
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import HttpProblem, problem_response
from driftscope_service.http.log_format import holds_key
from driftscope_service.http.problem_kinds import ProblemKind

FORM: Final = "application/x-www-form-urlencoded"
#: Half of a pair that stands for one character; alone it stands for none.
_LONE = re.compile("[\ud800-\udfff]")
#: Escapes that may mean one of these; told apart by reading them.
_SUSPECT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
#: The largest report that is accepted, a hundred cells of a grid, has half of them.
MAX_MARKS: Final = 500_000
#: Of a place in the body, in the answer.
MAX_POINTER: Final = 200


class AddressGuard:
    """Of the address and the headers; above the guard of keys, which passes addresses on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := _refusal(scope)):
            response = problem_response(scope, *refusal)
            return await response(scope, receive, send)
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> tuple[ProblemKind, str] | None:
    query = unquote_plus(scope["query_string"].decode("latin-1"))
    for place, text in (("path", scope["path"]), ("query", query)):
        if holds_key(text):
            return problem_kinds.KEY_IN_ADDRESS, f"the {place} holds an API key"
        if _is_unfit(text):
            return (
                problem_kinds.MALFORMED_REQUEST,
                f"the {place} holds a NUL character or half of a surrogate pair",
            )
    for name, value in scope["headers"]:
        if b"\x00" in value:
            shown = name.decode("latin-1")[:MAX_POINTER]
            return problem_kinds.MALFORMED_REQUEST, f"the header {shown!r} holds a NUL character"
    return None


def _is_unfit(text: str) -> bool:
    return "\x00" in text or _LONE.search(text) is not None


class BodyGuard:
    """Of JSON and forms, which are small enough to be read whole; below the limits of bodies.

    Pushed steps pass: they are read as they arrive, and checked by their readers."""

    def __init__(self, app: ASGIApp, streamed: re.Pattern[str]) -> None:
        """`streamed`: paths whose bodies are not read here."""
        self._app = app
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._streamed.fullmatch(scope["path"]):
            return await self._app(scope, receive, send)
        await self._app(scope, _checked(scope, receive), send)


def _checked(scope: Scope, receive: Receive) -> Receive:
    """Reads only when the route does. Raises HttpProblem there."""
    whole = False

    async def checked() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        whole = True
        body = b"".join(parts)
        media_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        _check(media_type, body)
        return {"type": "http.request", "body": body, "more_body": False}

    return checked


def _check(media_type: str, body: bytes) -> None:
    if media_type == FORM:
        if b"%00" in body or b"\x00" in body:
            raise _unfit("", "it holds a NUL character")
        return
    if b"\x00" in body:
        raise _unfit("", "it holds a NUL byte")
    if media_type.startswith("multipart/"):
        return
    marks = marks_beyond(body, MAX_MARKS)
    if marks is not None:
        raise _unfit("", f"it has {marks:,} lists, objects and names; accepted are {MAX_MARKS:,}")
    if _SUSPECT.search(body):
        _check_strings(body)


def _check_strings(body: bytes) -> None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return  # whoever reads it says what is wrong
    for pointer, text in _strings(document):
        if _is_unfit(text):
            raise _unfit(pointer, "it holds a NUL character or half of a surrogate pair")


def _strings(document: Any) -> Iterator[tuple[str, str]]:
    """Every string and name, with its pointer."""
    left = [("", document)]
    while left:
        pointer, value = left.pop()
        if isinstance(value, str):
            yield pointer, value
        elif isinstance(value, list):
            left += [(f"{pointer}/{place}", one) for place, one in enumerate(value)]
        elif isinstance(value, dict):
            yield from ((pointer, name) for name in value)
            left += [(f"{pointer}/{name}", one) for name, one in value.items()]


def _unfit(pointer: str, what: str) -> HttpProblem:
    shown = pointer.encode("ascii", "backslashreplace").decode()[:MAX_POINTER]
    return HttpProblem(
        problem_kinds.INVALID_REQUEST,
        f"{shown or 'the body'}: {what}",
        errors=[{"pointer": shown, "message": what}],
    )
