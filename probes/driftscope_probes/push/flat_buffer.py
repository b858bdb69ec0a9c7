"""Just enough of FlatBuffers to read a number or a length out of a table somebody sent.

In: bytes. Out: numbers, or PushError where a place lies outside. The layout:
https://flatbuffers.dev/internals/ (a table refers back to a vtable with the places of its fields).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from driftscope_probes.push.push_error import PushError

#: A vtable starts with its own size and that of the table.
VTABLE_START = 4
PLACE_BYTES = 2


@dataclass(frozen=True, slots=True)
class FlatTable:
    content: memoryview
    place: int

    def number(self, field: int, form: str) -> int:
        """`form`: of struct. Absent fields are 0, the default of every field read here."""
        place = self._place_of(field)
        return 0 if place is None else number(self.content, place, form)

    def table(self, field: int) -> FlatTable | None:
        place = self._referred(field)
        return None if place is None else FlatTable(self.content, place)

    def entries(self, field: int) -> int:
        """Of a vector."""
        place = self._referred(field)
        return 0 if place is None else number(self.content, place, "<I")

    def _referred(self, field: int) -> int | None:
        place = self._place_of(field)
        return None if place is None else place + number(self.content, place, "<I")

    def _place_of(self, field: int) -> int | None:
        vtable = self.place - number(self.content, self.place, "<i")
        entry = VTABLE_START + PLACE_BYTES * field
        if entry + PLACE_BYTES > number(self.content, vtable, "<H"):
            return None
        offset = number(self.content, vtable + entry, "<H")
        return self.place + offset if offset else None


def root(content: memoryview) -> FlatTable:
    return FlatTable(content, number(content, 0, "<I"))


def number(content: memoryview, place: int, form: str) -> int:
    if not 0 <= place <= len(content) - struct.calcsize(form):
        raise PushError(
            f"it refers to byte {place} of a header of {len(content)}.",
            remedy="write it with an Arrow library and send it whole.",
        )
    (value,) = struct.unpack_from(form, content, place)
    return int(value)
