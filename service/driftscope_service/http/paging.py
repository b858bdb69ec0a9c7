"""Cursors and limits of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from driftscope_service.http.errors import InvalidField

#: The longest cursor we ever hand out is shorter; anything longer is refused unread.
MAX_CURSOR_LENGTH = 64
_PREFIX = "before:"


def encode_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"{_PREFIX}{number}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    """Raises ValueError if `cursor` is not one of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        prefix, number = text[: len(_PREFIX)].decode("ascii"), text[len(_PREFIX) :].decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a cursor of this service") from error
    # isdecimal also bounds it: 18 digits fit SQLite's 64-bit integers.
    if prefix != _PREFIX or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise ValueError("not a cursor of this service")
    return int(number)


Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[
    str | None,
    Query(max_length=MAX_CURSOR_LENGTH, description="next_cursor of a page"),
]
#: Remedy of a page for people: they did not write the cursor themselves.
FIRST_PAGE = "begin at the first page."
_Row = TypeVar("_Row")


def before(
    cursor: str | None, *, remedy: str = "give next_cursor of a page, or leave it out."
) -> int | None:
    """Number of the last row that was shown; None for the first page. Raises InvalidField."""
    try:
        return None if cursor is None else decode_cursor(cursor)
    except ValueError as error:
        raise InvalidField("query/cursor", str(error), remedy=remedy) from None


def cut(
    found: Sequence[_Row], limit: int, number: Callable[[_Row], int]
) -> tuple[Sequence[_Row], str | None]:
    """What is shown of up to limit + 1 rows, and the cursor of the next page if there is one."""
    shown = found[:limit]
    return shown, encode_cursor(number(shown[-1])) if len(found) > limit else None
