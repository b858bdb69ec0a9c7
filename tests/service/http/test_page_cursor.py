"""Cursors of listings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.store import page_cursor


@given(st.integers(0, 10**18 - 1))
def test_there_and_back(number: int) -> None:
    cursor = page_cursor.encode(number)
    assert page_cursor.decode(cursor) == number
    assert len(cursor) <= page_cursor.MAX_CURSOR_LENGTH


@given(st.text(max_size=page_cursor.MAX_CURSOR_LENGTH))
def test_anything_else_is_a_value_error_or_a_number(text: str) -> None:
    try:
        assert page_cursor.decode(text) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize("text", ["", "é", "MTI", "YmVmb3JlOi0x", "YmVmb3JlOg"])
def test_not_ours(text: str) -> None:
    with pytest.raises(ValueError):
        page_cursor.decode(text)
