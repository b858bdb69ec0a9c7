"""What was used last stays; a new version and an error are made again."""

from __future__ import annotations

from functools import partial

import pytest

from driftscope_service.runs.last_used import LastUsed


def test_the_one_used_longest_ago_goes() -> None:
    made: list[str] = []
    values: LastUsed[str, str] = LastUsed(2)

    def value(key: str) -> str:
        made.append(key)
        return key.upper()

    for key in ("a", "b", "a", "c", "a", "b"):
        assert values.get(key, partial(value, key)) == key.upper()
    assert made == ["a", "b", "c", "b"]


def test_another_version_is_made_again_in_the_same_slot() -> None:
    values: LastUsed[str, int] = LastUsed(2)
    assert values.get("other", lambda: 0) == 0
    made = [values.get("a", partial(int, n), version=n // 2) for n in range(4)]
    assert made == [0, 0, 2, 2]
    assert values.get("other", lambda: 9) == 0


def test_an_error_is_not_kept() -> None:
    values: LastUsed[str, int] = LastUsed(2)
    with pytest.raises(ZeroDivisionError):
        values.get("a", lambda: 1 // 0)
    assert values.get("a", lambda: 1) == 1
