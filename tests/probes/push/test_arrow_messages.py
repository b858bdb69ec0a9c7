"""Against the Arrow library's own reader of messages; and what it alone would fall for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.push.arrow_messages import check_messages, root
from driftscope_probes.push.rules import PushError

fuzzed = settings(max_examples=300, deadline=None)


def stream(batches: int, metadata: Any = None, compression: str | None = None) -> bytearray:
    values = pa.array(np.zeros(4096, np.float32))
    schema = pa.schema([pa.field("x", pa.float32())], metadata=metadata)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for _ in range(batches):
            writer.write_batch(pa.record_batch([values], schema=schema))
    return bytearray(sink.getvalue().to_pybytes())


@given(batches=st.integers(0, 5), repeated=st.integers(0, 9))
@settings(deadline=None)
def test_metadata_entries_are_counted_with_repetitions(batches: int, repeated: int) -> None:
    metadata = pa.KeyValueMetadata([("a", "1")] * repeated + [("b", "2")])
    assert check_messages(memoryview(stream(batches, metadata))) == repeated + 1
    assert check_messages(memoryview(stream(batches))) == 0


@fuzzed
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3)
)
def test_what_passes_is_cut_as_the_library_cuts_it(changes: list[tuple[float, int]]) -> None:
    whole = stream(2)
    # Most bytes are values, which say nothing here: the headers come before their zeros.
    headers = [place for place, byte in enumerate(whole) if any(whole[place : place + 16])]
    for share, value in changes:
        whole[headers[int(share * len(headers))]] = value
    try:
        check_messages(memoryview(whole))
    except PushError as error:
        assert error.message.isprintable() and error.remedy
        return
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(bytes(whole)))
    try:
        kinds = [message.type for message in reader]
    except (pa.ArrowException, OSError):
        return
    assert kinds[:1] == ["schema"] and set(kinds[1:]) <= {"record batch"}


@pytest.mark.parametrize("place", [0, 4, 1000, 2**31, 2**32 - 1])
def test_places_outside_of_a_table(place: int) -> None:
    table = root(memoryview(place.to_bytes(4, "little") + bytes(8)))
    with pytest.raises(PushError, match="refers to byte"):
        table.number(1, "<q") + table.entries(2) + root(memoryview(b"")).offset


CLAIMED = 2**28


@fuzzed
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=2)
)
def test_nothing_compressed_reaches_the_library(changes: list[tuple[float, int]]) -> None:
    """Every buffer claims 256 MB: the library would take them before it looks any further."""
    content = bomb()
    headers = content.index(CLAIMED.to_bytes(8, "little"))
    for share, value in changes:
        content[int(share * headers)] = value
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    try:
        check_messages(memoryview(content))
    except PushError:
        return
    try:
        pa.ipc.open_stream(pa.py_buffer(bytes(content)), memory_pool=pool).read_all()
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        pass
    assert pool.max_memory() < 2**20


def bomb() -> bytearray:
    content = stream(1, compression="zstd")
    honest = (4 * 4096).to_bytes(8, "little")
    assert honest in content
    return content.replace(honest, CLAIMED.to_bytes(8, "little"))


def test_the_library_alone_would_take_what_is_claimed() -> None:
    with pytest.raises(PushError, match="batch 0 is compressed"):
        check_messages(memoryview(bomb()))
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    with pytest.raises((pa.ArrowException, OSError)):
        pa.ipc.open_stream(pa.py_buffer(bytes(bomb())), memory_pool=pool).read_all()
    assert pool.max_memory() >= CLAIMED
