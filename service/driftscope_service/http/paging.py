"""Pages of a listing: the query parameters, the cut, the cursor. For the API and the pages alike.

A reader asks the store for one row more than it shows, which tells whether there is a next page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from driftscope_service.errors import InvalidField
from driftscope_service.store import page_cursor

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[
    str | None,
    Query(max_length=page_cursor.MAX_CURSOR_LENGTH, description="next_cursor of a page"),
]
#: Remedy of a page for people: they did not write the cursor themselves.
FIRST_PAGE = "begin at the first page."
_Row = TypeVar("_Row")


def before(
    cursor: str | None, *, remedy: str = "give next_cursor of a page, or leave it out."
) -> int | None:
    """Number of the last row that was shown; None for the first page. Raises InvalidField."""
    try:
        return None if cursor is None else page_cursor.decode(cursor)
    except ValueError as error:
        raise InvalidField("query/cursor", str(error), remedy=remedy) from None


def cut(
    found: Sequence[_Row], limit: int, number: Callable[[_Row], int]
) -> tuple[Sequence[_Row], str | None]:
    """What is shown of up to limit + 1 rows, and the cursor of the next page if there is one."""
    shown = found[:limit]
    return shown, page_cursor.encode(number(shown[-1])) if len(found) > limit else None
