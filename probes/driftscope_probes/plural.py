"""Counts in words: "1 step", "2 steps", never "1 steps"."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """`many` where it is not `one` with an s. Thousands are separated: "12,000 steps"."""
    return f"{count:,} {noun(count, one, many)}"


def noun(count: int, one: str, many: str | None = None) -> str:
    """The word alone, where the count stands elsewhere."""
    return one if count == 1 else many or f"{one}s"
