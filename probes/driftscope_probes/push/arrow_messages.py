"""The messages of an Arrow IPC stream, checked before the Arrow library is given any of them.

In: the bytes of a stream. Out: PushError, unless it is one schema, then uncompressed batches, then
the end, and no byte beside them. The format: arrow.apache.org/docs/format/Columnar.html
(encapsulated messages); field numbers from the Arrow project's format/Message.fbs and Schema.fbs.
"""

from __future__ import annotations

from driftscope_probes.push.flat_buffer import FlatTable, number, root
from driftscope_probes.push.limits import MAX_ARROW_BATCHES, MAX_HEADER_BYTES
from driftscope_probes.push.push_error import PushError

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
    place = messages = entries = 0
    while True:
        content, after = _metadata(stream, place)
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
        place = after + _body_bytes(message, len(stream) - after)
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


def _metadata(stream: memoryview, place: int) -> tuple[memoryview, int]:
    """Of the message at `place`, and where it ends; empty at the end of the stream."""
    if len(stream) - place < START_BYTES:
        raise _cut_short(len(stream))
    if number(stream, place, "<I") != CONTINUATION:
        raise PushError(f"there is no Arrow message at byte {place:,}.", remedy=WRITE_AGAIN)
    size, begin = number(stream, place + 4, "<I"), place + START_BYTES
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
    return PushError(f"it ends after {size:,} bytes without an end mark.", remedy=WRITE_AGAIN)
