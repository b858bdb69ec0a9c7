"""Against the zstandard library's own compressor, and frames made by hand."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.push.rules import MAX_ZSTD_RATIO, PushError
from driftscope_probes.push.zstd_stream import (
    RATIO_FROM_BYTES,
    SLICE_BYTES,
    UnpackedTooLarge,
    ZstdStream,
)

MIB = 2**20
NO_RATIO = float("inf")
#: RFC 8878: magic number, no flags, a window of 128 KiB.
FRAME_START = bytes.fromhex("28b52ffd0038")
BLOCK = 128 * 1024
fuzzed = settings(max_examples=150, deadline=None)


def repeated_block(size: int = BLOCK, last: bool = False) -> bytes:
    """Four bytes that unpack to `size` zeros."""
    return (int(last) | 1 << 1 | size << 3).to_bytes(3, "little") + b"\0"


def unpacked(chunks: list[bytes], limit: int = 2**31, ratio: float = NO_RATIO) -> bytes:
    stream = ZstdStream(limit, ratio)
    content = b"".join(block for chunk in chunks for block in stream.feed(chunk))
    stream.finish()
    return content


def packed(content: bytes, **parameters: int) -> bytes:
    chosen = zstandard.ZstdCompressionParameters(**{"compression_level": 3, **parameters})
    return zstandard.ZstdCompressor(compression_params=chosen).compress(content)


def cut(frame: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(frame)) for place in places), len(frame)]
    return [frame[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]


CONTENTS = st.lists(
    st.one_of(
        st.binary(max_size=2000),
        st.tuples(st.binary(min_size=1, max_size=3), st.integers(0, 100_000)).map(
            lambda repeated: repeated[0] * repeated[1]
        ),
    ),
    max_size=4,
).map(b"".join)


@fuzzed
@given(content=CONTENTS, level=st.integers(-5, 19), places=st.lists(st.integers(0, 9000)))
def test_whatever_the_chunks_the_content_comes_back(
    content: bytes, level: int, places: list[int]
) -> None:
    frame = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(content)
    assert unpacked(cut(frame, places)) == content


@fuzzed
@given(content=CONTENTS, share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(content: bytes, share: float) -> None:
    frame = packed(content)
    with pytest.raises(PushError, match="cut short"):
        unpacked([frame[: int(share * len(frame))]])


@fuzzed
@given(
    content=CONTENTS,
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1),
)
def test_changed_bytes_are_content_or_a_push_error(
    content: bytes, changes: list[tuple[float, int]]
) -> None:
    frame = bytearray(packed(content))
    for share, value in changes:
        frame[int(share * len(frame))] = value
    try:
        unpacked([bytes(frame)], limit=8 * MIB)
    except PushError as error:
        assert error.message and error.remedy


@pytest.mark.parametrize("after", [b"\0", packed(b"second"), b"\x50\x2a\x4d\x18\0\0\0\0"])
@pytest.mark.parametrize("apart", [True, False])
def test_one_frame_and_nothing_after_it(after: bytes, apart: bool) -> None:
    frame = packed(b"first")
    with pytest.raises(PushError, match="after the end"):
        unpacked([frame, after] if apart else [frame + after])


def test_an_empty_chunk_at_the_end_is_no_trailing_data() -> None:
    assert unpacked([packed(b"x"), b""]) == b"x"
    with pytest.raises(PushError, match="cut short after 0 bytes"):
        unpacked([b""])


@pytest.mark.parametrize("other", [b"\x1f\x8b\x08" + bytes(20), b"{}" * 20, bytes(64)])
def test_another_coding_is_refused(other: bytes) -> None:
    with pytest.raises(PushError, match="not valid zstd"):
        unpacked([other])


def test_a_dictionary_is_refused() -> None:
    samples: list[bytes | bytearray | memoryview] = [
        b"logprobs %d entropy %d" % (i, i * i) for i in range(2000)
    ]
    dictionary = zstandard.train_dictionary(1024, samples)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"logprobs 3 entropy 9")
    with pytest.raises(PushError, match="not valid zstd"):
        unpacked([frame])


@pytest.mark.parametrize(("window_log", "accepted"), [(23, True), (24, False), (27, False)])
def test_the_window_is_limited(window_log: int, accepted: bool) -> None:
    chosen = zstandard.ZstdCompressionParameters(window_log=window_log)
    compressor = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    frame = compressor.compress(b"content") + compressor.flush()
    if accepted:
        assert unpacked([frame]) == b"content"
    else:
        with pytest.raises(PushError, match="not valid zstd"):
            unpacked([frame])


@pytest.mark.parametrize(
    ("limit", "ratio", "error"),
    [(2**40, MAX_ZSTD_RATIO, PushError), (8 * MIB, NO_RATIO, UnpackedTooLarge)],
)
def test_a_bomb_is_stopped_within_bounded_memory(
    limit: int, ratio: float, error: type[PushError]
) -> None:
    """13 GB in 400 KB, and in one chunk."""
    bomb = FRAME_START + repeated_block() * 100_000 + repeated_block(last=True)
    stream = ZstdStream(limit, ratio)
    taken = 0
    tracemalloc.start()
    with pytest.raises(error):
        for block in stream.feed(bomb):
            taken += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken <= min(limit, RATIO_FROM_BYTES)
    assert peak < 3 * (SLICE_BYTES // 4) * BLOCK


def test_without_limits_it_is_given_block_by_block() -> None:
    """What makes the bomb above one: here is all of it, and never more than two blocks at once."""
    blocks = 4000
    frame = FRAME_START + repeated_block() * (blocks - 1) + repeated_block(last=True)
    stream = ZstdStream(2**40, NO_RATIO)
    tracemalloc.start()
    assert sum(len(block) for block in stream.feed(frame)) == blocks * BLOCK
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * (SLICE_BYTES // 4) * BLOCK < blocks * BLOCK / 10
    stream.finish()


def test_the_limits_are_exact() -> None:
    content = bytes(range(256)) * 100
    frame = packed(content)
    assert unpacked([frame], limit=len(content)) == content
    with pytest.raises(UnpackedTooLarge, match="more than 25,599 bytes"):
        unpacked([frame], limit=len(content) - 1)
    # Below 1 MiB a ratio says nothing.
    assert len(content) > 5 * len(frame)
    assert unpacked([frame], ratio=1.5) == content
