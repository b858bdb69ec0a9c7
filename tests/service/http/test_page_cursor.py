"""Cursors of listings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.http import paging


@given(st.integers(0, 10**18 - 1))
def test_there_and_back(number: int) -> None:
    cursor = paging.encode_cursor(number)
    assert paging.decode_cursor(cursor) == number
    assert len(cursor) <= paging.MAX_CURSOR_LENGTH


@given(st.text(max_size=paging.MAX_CURSOR_LENGTH))
def test_anything_else_is_a_value_error_or_a_number(text: str) -> None:
    try:
        assert paging.decode_cursor(text) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize("text", ["", "é", "MTI", "YmVmb3JlOi0x", "YmVmb3JlOg"])
def test_not_ours(text: str) -> None:
    with pytest.raises(ValueError):
        paging.decode_cursor(text)
