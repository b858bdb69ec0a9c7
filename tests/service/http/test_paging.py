"""Pages of a listing: every row once, in order, whatever the size of a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.http import paging
from driftscope_service.http.errors import InvalidField


@given(st.integers(0, 40), st.integers(1, 12))
def test_every_row_is_shown_once(rows: int, limit: int) -> None:
    numbers = list(range(rows, 0, -1))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        last = paging.before(cursor)
        found = [n for n in numbers if last is None or n < last][: limit + 1]
        shown, cursor = paging.cut(found, limit, lambda number: number)
        seen += shown
        if cursor is None:
            break
        assert len(shown) == limit
    assert seen == numbers


def test_a_cursor_of_another_kind_is_refused_with_its_remedy() -> None:
    with pytest.raises(InvalidField) as caught:
        paging.before("nonsense", remedy=paging.FIRST_PAGE)
    assert caught.value.extras["remedy"] == paging.FIRST_PAGE
