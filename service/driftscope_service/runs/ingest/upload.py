"""Whether one more upload may begin: a free slot and room on the disk.

In: the limits and the length that a request declares. Out: a slot held, or 503 or 507.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError

#: Receiving and analysing a large step takes a few seconds.
SLOT_RETRY_S = 5
#: Space comes back as old tokens are dropped, or when somebody makes room.
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
