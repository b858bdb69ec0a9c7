"""An upload: what its headers say, and its body on the way to a file."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from driftscope_probes.push.readers.base import StepFormat
from driftscope_probes.push.rules import MAX_JSON_BYTES, MAX_ZSTD_RATIO
from driftscope_probes.push.zstd_stream import ZstdStream
from driftscope_service.http import problem_kinds
from driftscope_service.http.body_pace import BodyClock
from driftscope_service.http.errors import DISK_RETRY_S, ServiceError
from driftscope_service.store.storage.base import FULL

SAFETENSORS = "application/vnd.safetensors"
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
#: safetensors has no registered media type, so many clients send bytes.
FORMAT_OF: Mapping[str, StepFormat] = {
    SAFETENSORS: "safetensors",
    "application/octet-stream": "safetensors",
    ARROW: "arrow",
    JSON: "json",
}
ENCODINGS = ("identity", "zstd")


@dataclass(frozen=True, slots=True)
class UploadKind:
    step_format: StepFormat
    zstd: bool

    def max_bytes(self, limit: int) -> int:
        """Limit of the decoded body; JSON takes far more memory than its size."""
        return min(limit, MAX_JSON_BYTES) if self.step_format == "json" else limit


def upload_kind(content_type: str, content_encoding: str) -> UploadKind:
    media_type = content_type.partition(";")[0].strip().lower()
    step_format = FORMAT_OF.get(media_type)
    if step_format is None:
        raise _unsupported("Content-Type", content_type, FORMAT_OF)
    encoding = content_encoding.strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise _unsupported("Content-Encoding", content_encoding, ENCODINGS)
    return UploadKind(step_format, encoding == "zstd")


def _unsupported(
    header: str, given: str, accepted: Mapping[str, object] | tuple[str, ...]
) -> ServiceError:
    known = ", ".join(accepted)
    return ServiceError(
        problem_kinds.UNSUPPORTED_MEDIA_TYPE,
        f"{header} is {given[:200]!r}; accepted are {known}",
        remedy=f"send {header} with one of them",
    )


#: Receiving and analysing a large step takes a few seconds.
SLOT_RETRY_S = 5


@dataclass(eq=False, slots=True)
class _Holder:
    clock: BodyClock | None  # None: all that it works on is there


class UploadSlots:
    """For one event loop."""

    def __init__(self, data_dir: Path, slots: int, min_free_disk_bytes: int) -> None:
        self._data_dir = data_dir
        self._slots = slots
        self._holders: set[_Holder] = set()
        self._min_free_disk_bytes = min_free_disk_bytes

    @contextmanager
    def hold(self, declared_bytes: int, clock: BodyClock | None = None) -> Iterator[None]:
        """Takes the slot of an upload that hardly flows, where none is free."""
        if len(self._holders) >= self._slots and not self._evict_slowest():
            raise ServiceError(
                problem_kinds.TOO_MANY_UPLOADS,
                f"{self._slots} uploads are under way already",
                headers={"Retry-After": str(SLOT_RETRY_S)},
            )
        holder = _Holder(clock)
        self._holders.add(holder)
        try:
            self._check_room(declared_bytes)
            with full_disk_as_problem():
                yield
        finally:
            self._holders.discard(holder)

    def _evict_slowest(self) -> bool:
        rates = {
            holder: rate
            for holder in self._holders
            if holder.clock is not None and (rate := holder.clock.rate_if_slow()) is not None
        }
        if not rates:
            return False
        slowest = min(rates, key=rates.__getitem__)
        assert slowest.clock is not None
        slowest.clock.evict()
        self._holders.discard(slowest)
        return True

    def _check_room(self, declared_bytes: int) -> None:
        free = shutil.disk_usage(self._data_dir).free
        needed = self._min_free_disk_bytes + declared_bytes
        if free < needed:
            raise _storage_full(f"{free} bytes are free, the upload needs {needed}")


@contextmanager
def full_disk_as_problem() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _storage_full("the disk became full while the upload was written") from error


def _storage_full(detail: str) -> ServiceError:
    return ServiceError(
        problem_kinds.STORAGE_FULL, detail, headers={"Retry-After": str(DISK_RETRY_S)}
    )


@dataclass(frozen=True, slots=True)
class Received:
    path: Path
    sha256: str  # hex, of the decoded body
    size_bytes: int  # decoded


class IncomingFile:
    def __init__(self, path: Path, max_bytes: int, *, zstd: bool) -> None:
        self._path = path
        self._max_bytes = max_bytes
        # Its own size limit is not needed: `write` checks every block as for a plain body.
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
        """Everything is written to the operating system; `sync` must still be called."""
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


#: Sixteen times what the server hands over at once: few hops to a thread, little memory.
BATCH_BYTES = 2**20


#: Arrives before a slot is taken and a file is made: a small step whole, and of a slow one too
#: little to keep others out. As much as the server holds of each connection anyway.
FIRST_BYTES = 2**16


@dataclass(slots=True)
class ArrivingBody:
    """The body of a request from its first bytes on, which have arrived."""

    first: bytes
    rest: AsyncIterator[bytes]

    async def batches(self) -> AsyncIterator[bytes]:
        parts = [self.first] if self.first else []
        size = len(self.first)
        async for chunk in self.rest:
            parts.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)


async def arriving_body(request: Request) -> ArrivingBody:
    rest = _chunks(request)
    parts: list[bytes] = []
    size = 0
    async for chunk in rest:
        parts.append(chunk)
        size += len(chunk)
        if size >= FIRST_BYTES:
            break
    return ArrivingBody(b"".join(parts), rest)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """How fast they have to come is for the middleware (http/body_pace)."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        # This answer goes unread; it only ends the request like any other failure.
        raise ServiceError(
            problem_kinds.MALFORMED_REQUEST, "the connection ended within the body"
        ) from None


@asynccontextmanager
async def received_body(body: ArrivingBody, file: IncomingFile) -> AsyncIterator[Received]:
    """The file exists within the context only, unless it is moved elsewhere there."""
    try:
        yield await _receive(body, file)
    finally:
        # Shielded: a service that ends cancels the request, and the file has to go all the same.
        await asyncio.shield(asyncio.to_thread(file.discard))


async def _receive(body: ArrivingBody, file: IncomingFile) -> Received:
    # While one batch is decoded, hashed and written, the next one arrives.
    writing: asyncio.Task[None] | None = None
    try:
        async for batch in body.batches():
            if writing is not None:
                await writing
            writing = asyncio.create_task(asyncio.to_thread(file.write, batch))
        if writing is not None:
            await writing
    finally:
        # If the body ended otherwise, the outcome of the last write does not matter.
        if writing is not None and not writing.cancel() and not writing.cancelled():
            writing.exception()
    return await asyncio.to_thread(file.finish)
