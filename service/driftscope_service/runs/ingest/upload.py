"""An upload before it is read: its media type, and the slot that it needs."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.push.rules import MAX_JSON_BYTES
from driftscope_probes.push.step_file import StepFormat
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError

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
#: Space is freed as old tokens are dropped, or by the operator.
DISK_RETRY_S = 60
_FULL = (errno.ENOSPC, errno.EDQUOT)


class UploadSlots:
    def __init__(self, data_dir: Path, slots: int, min_free_disk_bytes: int) -> None:
        self._data_dir = data_dir
        self._slots = slots
        self._free = threading.BoundedSemaphore(slots)
        self._min_free_disk_bytes = min_free_disk_bytes

    @contextmanager
    def hold(self, declared_bytes: int) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise ServiceError(
                problem_kinds.TOO_MANY_UPLOADS,
                f"{self._slots} uploads are under way already",
                headers={"Retry-After": str(SLOT_RETRY_S)},
            )
        try:
            self._check_room(declared_bytes)
            with full_disk_as_problem():
                yield
        finally:
            self._free.release()

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
        if error.errno not in _FULL:
            raise
        raise _storage_full("the disk became full while the upload was written") from error


def _storage_full(detail: str) -> ServiceError:
    return ServiceError(
        problem_kinds.STORAGE_FULL, detail, headers={"Retry-After": str(DISK_RETRY_S)}
    )
