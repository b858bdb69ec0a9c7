"""A body with `Content-Encoding: zstd`, unpacked while it arrives and never beyond its limits.

In: chunks of one zstd frame (RFC 8878). Out: blocks of the content, or PushError.
"""

from __future__ import annotations

from collections.abc import Iterator

from zstandard import ZstdDecompressor, ZstdError

from driftscope_probes.push.rules import PushError

#: RFC 9659: a zstd content coding needs no larger window. The decoder takes this much memory.
MAX_WINDOW_BYTES = 8 * 2**20
#: The decoder returns all that its input unpacks to. The densest block, four bytes, unpacks to
#: 128 KiB (RFC 8878 3.1.1.2), so that 512 bytes are at most 16 MiB. Half the size takes twice the
#: calls; this one unpacks 52 MB in 85 ms, whole chunks in 50 ms.
SLICE_BYTES = 512
#: Blocks for hashing and writing, rather than the half kilobyte that one slice gives.
BLOCK_BYTES = 256 * 2**10
#: The ratio counts from here on: a few thousand masked tokens may shrink to almost nothing.
RATIO_FROM_BYTES = 2**20
SEND_AGAIN = "compress the file as one zstd frame with a window of up to 8 MiB and send it whole."


class UnpackedTooLarge(PushError):
    """The content exceeds `max_output_bytes`."""


class ZstdStream:
    """One frame. After a PushError the stream is unusable."""

    def __init__(self, max_output_bytes: int, max_ratio: float) -> None:
        """max_ratio: bytes of content per byte received, once there is 1 MiB of content."""
        self._max_output_bytes = max_output_bytes
        self._max_ratio = max_ratio
        self._decoder = ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
        self._received = 0
        self._unpacked = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take every block before the next chunk. Peak: the window and two blocks of 16 MiB."""
        gathered: list[bytes] = []
        size = 0
        view = memoryview(chunk)
        for start in range(0, len(chunk), SLICE_BYTES):
            content = self._unpack(view[start : start + SLICE_BYTES])
            gathered.append(content)
            size += len(content)
            if size >= BLOCK_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        if size:
            yield b"".join(gathered)

    def finish(self) -> None:
        """Raises PushError unless the frame has ended."""
        if not self._decoder.eof:
            raise PushError(
                f"the zstd frame is cut short after {self._received:,} bytes.", remedy=SEND_AGAIN
            )

    def _unpack(self, part: memoryview) -> bytes:
        if self._decoder.eof:
            raise _trailing()
        try:
            content: bytes = self._decoder.decompress(part)
        except ZstdError as error:
            raise PushError(f"it is not valid zstd: {error}.", remedy=SEND_AGAIN) from error
        if self._decoder.unused_data:
            raise _trailing()
        self._received += len(part)
        self._unpacked += len(content)
        self._check_size()
        return content

    def _check_size(self) -> None:
        if self._unpacked > self._max_output_bytes:
            raise UnpackedTooLarge(
                f"it unpacks to more than {self._max_output_bytes:,} bytes.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
        if self._unpacked > max(RATIO_FROM_BYTES, self._max_ratio * self._received):
            raise PushError(
                f"its first {self._received:,} bytes unpack to {self._unpacked:,}, more than "
                f"{self._max_ratio:g} times as many.",
                remedy="send it without Content-Encoding.",
            )


def _trailing() -> PushError:
    return PushError("there are bytes after the end of the zstd frame.", remedy=SEND_AGAIN)
