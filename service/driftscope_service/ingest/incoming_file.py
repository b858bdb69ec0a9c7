"""One upload on its way to disk: decoded, counted, hashed and written; gone unless it is kept.

In: chunks of the body, from any thread. Out: a .part file and the SHA-256 of the decoded bytes.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.push.rules import MAX_ZSTD_RATIO
from driftscope_probes.push.zstd_stream import ZstdStream
from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Received:
    path: Path
    sha256: str  # hex, of the decoded body
    size_bytes: int  # decoded


class IncomingFile:
    def __init__(self, path: Path, max_bytes: int, *, zstd: bool) -> None:
        self._path = path
        self._max_bytes = max_bytes
        # Its own limit of size is not needed: `write` checks every block as for a plain body.
        self._zstd = ZstdStream(sys.maxsize, MAX_ZSTD_RATIO) if zstd else None
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()
        self._discarded = False
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        """Raises ServiceError (too large, disk full) or PushError (not decodable)."""
        with self._lock:
            if self._discarded:
                return
            for block in self._decoded(chunk):
                self._size += len(block)
                if self._size > self._max_bytes:
                    raise ServiceError(
                        problem_kinds.CONTENT_TOO_LARGE,
                        f"at most {self._max_bytes} bytes are accepted, decoded",
                        remedy="push each data-parallel rank's share as a shard of its own",
                    )
                self._hash.update(block)
                self._file.write(block)

    def finish(self) -> Received:
        """All of it is with the operating system; `to_disk` is still to be called."""
        with self._lock:
            if self._zstd is not None:
                self._zstd.finish()
            self._file.close()
            return Received(self._path, self._hash.hexdigest(), self._size)

    def discard(self) -> None:
        """Waits for a write under way. Leaves a file alone that was moved elsewhere."""
        with self._lock:
            self._discarded = True
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _decoded(self, chunk: bytes) -> Iterable[bytes]:
        return (chunk,) if self._zstd is None else self._zstd.feed(chunk)


def to_disk(path: Path) -> None:
    """Until a power cut cannot take it any more."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
