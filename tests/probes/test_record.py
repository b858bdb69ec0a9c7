"""Stored values through Record and back: nothing lost, nothing added, nothing changed later."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_probes.record import Record


class Inner(Record):
    number: float
    name: str | None = None


class Outer(Record):
    rows: tuple[Inner, ...]


@pytest.mark.parametrize("row", [{}, {"name": None}, {"name": "n"}, {"later": {"a": [1]}}])
def test_what_was_stored_is_written_again(row: dict[str, Any]) -> None:
    stored = {"rows": [{"number": 1.5, **row}], "added": row}
    assert Outer.read(stored).to_dict() == stored


def test_a_record_is_checked_and_frozen() -> None:
    with pytest.raises(ValidationError, match="rows.0.number"):
        Outer.read({"rows": [{"number": "x"}]})
    with pytest.raises(ValidationError, match="frozen"):
        Outer.read({"rows": []}).rows = ()  # type: ignore[misc]
