"""How much a JSON document would become in memory, counted before anything reads it.

Three bytes, an empty list and its comma, become 64 of memory and a place for an error message:
15 MB of them took 10 s and 733 MiB to refuse.
"""

from __future__ import annotations

import re
from typing import Final

#: Opens a list or an object, or ends a name.
_MARKS: Final = (b"[", b"{", b":")
#: Once escapes are gone. One that does not end is left for the reader to refuse.
_STRING: Final = re.compile(rb'"[^"]*"')
#: Sequences of about 15 tokens in a step as large as JSON may be, in two columns.
MAX_MARKS: Final = 50_000


def marks_beyond(raw: bytes, most: int = MAX_MARKS) -> int | None:
    """Lists, objects and names, where there are more than `most`; without those in strings."""
    if _count(raw) <= most:
        return None
    # In three steps without a choice to go back to: one expression for strings with escapes keeps
    # a state for each of them, 500 MB for 10 MB.
    marks = _count(_STRING.sub(b"", raw.replace(rb"\\", b"").replace(rb"\"", b"")))
    return marks if marks > most else None


def _count(raw: bytes) -> int:
    return sum(raw.count(mark) for mark in _MARKS)
