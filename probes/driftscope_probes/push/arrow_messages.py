"""Checks an Arrow IPC stream's headers before pyarrow sees it: a hostile one claims any size."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from driftscope_probes.plural import counted
from driftscope_probes.push.rules import MAX_ARROW_BATCHES, MAX_HEADER_BYTES, PushError

#: A vtable starts with its own size and that of the table.
VTABLE_START = 4
OFFSET_BYTES = 2


@dataclass(frozen=True, slots=True)
class FlatTable:
    content: memoryview
    offset: int

    def number(self, field: int, form: str) -> int:
        """`form`: of struct. Absent fields are 0, the default of every field read here."""
        offset = self._offset_of(field)
        return 0 if offset is None else number(self.content, offset, form)

    def table(self, field: int) -> FlatTable | None:
        offset = self._referred(field)
        return None if offset is None else FlatTable(self.content, offset)

    def entries(self, field: int) -> int:
        """Length of a vector."""
        offset = self._referred(field)
        return 0 if offset is None else number(self.content, offset, "<I")

    def _referred(self, field: int) -> int | None:
        offset = self._offset_of(field)
        return None if offset is None else offset + number(self.content, offset, "<I")

    def _offset_of(self, field: int) -> int | None:
        vtable = self.offset - number(self.content, self.offset, "<i")
        entry = VTABLE_START + OFFSET_BYTES * field
        if entry + OFFSET_BYTES > number(self.content, vtable, "<H"):
            return None
        relative = number(self.content, vtable + entry, "<H")
        return self.offset + relative if relative else None


def root(content: memoryview) -> FlatTable:
    return FlatTable(content, number(content, 0, "<I"))


def number(content: memoryview, offset: int, form: str) -> int:
    if not 0 <= offset <= len(content) - struct.calcsize(form):
        raise PushError(
            f"it refers to byte {offset} of a header of {len(content)}.",
            remedy="write it with an Arrow library and send it whole.",
        )
    (value,) = struct.unpack_from(form, content, offset)
    return int(value)


CONTINUATION = 0xFFFFFFFF
#: The mark and the length of the metadata, four bytes each.
START_BYTES = 8
MESSAGE_KIND, MESSAGE_HEADER, MESSAGE_BODY_BYTES = 1, 2, 3
SCHEMA_METADATA = 2
BATCH_COMPRESSION = 3
SCHEMA, RECORD_BATCH = 1, 3
KINDS = {1: "a schema", 2: "a dictionary", 3: "a batch", 4: "a tensor", 5: "a sparse tensor"}
WRITE_AGAIN = "write it with an Arrow IPC stream writer, close the writer and send it whole."


def check_messages(stream: memoryview) -> int:
    """The entries of the schema's metadata, counted here because the library drops repeated ones.

    Nothing is copied.
    """
    offset = messages = entries = 0
    while True:
        content, after = _metadata(stream, offset)
        if not content:
            break
        message = root(content)
        header = _header(message, messages)
        if messages == 0:
            entries = header.entries(SCHEMA_METADATA)
        elif header.table(BATCH_COMPRESSION) is not None:
            raise PushError(
                f"batch {messages - 1} is compressed.",
                remedy="write it uncompressed; over HTTP, Content-Encoding: zstd does the same.",
            )
        offset = after + _body_bytes(message, len(stream) - after)
        messages += 1
        if messages > 1 + MAX_ARROW_BATCHES:
            raise PushError(
                f"it has more than {MAX_ARROW_BATCHES:,} batches.",
                remedy="write more sequences per batch; one batch per file is best.",
            )
    if after != len(stream):
        raise PushError("there are bytes after the end of the stream.", remedy=WRITE_AGAIN)
    if messages == 0:
        raise PushError("it ends before the schema.", remedy=WRITE_AGAIN)
    return entries


def _metadata(stream: memoryview, offset: int) -> tuple[memoryview, int]:
    """Metadata of the message at `offset`, and where it ends; empty at the end of the stream."""
    if len(stream) - offset < START_BYTES:
        raise _cut_short(len(stream))
    if number(stream, offset, "<I") != CONTINUATION:
        raise PushError(f"there is no Arrow message at byte {offset:,}.", remedy=WRITE_AGAIN)
    size, begin = number(stream, offset + 4, "<I"), offset + START_BYTES
    if size > MAX_HEADER_BYTES:
        raise PushError(
            f"the header of a message claims {size:,} bytes, accepted are {MAX_HEADER_BYTES:,}.",
            remedy=WRITE_AGAIN,
        )
    if size > len(stream) - begin:
        raise _cut_short(len(stream))
    return stream[begin : begin + size], begin + size


def _header(message: FlatTable, messages: int) -> FlatTable:
    kind = message.number(MESSAGE_KIND, "<B")
    expected = SCHEMA if messages == 0 else RECORD_BATCH
    if kind != expected:
        raise PushError(
            f"message {messages} is {KINDS.get(kind, 'of an unknown kind')}, expected is "
            f"{KINDS[expected]}.",
            remedy="send one schema, then batches of plain columns without dictionaries.",
        )
    header = message.table(MESSAGE_HEADER)
    if header is None:
        raise PushError(f"message {messages} has no header.", remedy=WRITE_AGAIN)
    return header


def _body_bytes(message: FlatTable, left: int) -> int:
    claimed = message.number(MESSAGE_BODY_BYTES, "<q")
    if not 0 <= claimed <= left:
        raise PushError(
            f"a message claims a body of {claimed:,} bytes, {left:,} are left.", remedy=WRITE_AGAIN
        )
    return claimed


def _cut_short(size: int) -> PushError:
    return PushError(
        f"it ends after {counted(size, 'byte')} without an end mark.", remedy=WRITE_AGAIN
    )
