"""Writes a running probe's progress to the job table: rarely enough for the disk, never stale.

In: every progress line of the probe. Out: at most two writes per second, the last one always.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from driftscope_probes.progress import Progress, ProgressSink

#: Each write is an fsync; a person would not notice a faster change.
MIN_INTERVAL_S = 0.5
_log = logging.getLogger("driftscope")


class ProgressWriter:
    """`offer` from the thread that reads the probe, `flush` now and then from another."""

    def __init__(self, write: ProgressSink, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: Progress | None = None
        self._next_write = -float("inf")

    def offer(self, progress: Progress) -> None:
        with self._lock:
            self._pending = progress
            self._write_if_due()

    def flush(self) -> None:
        """Write what came too soon after the previous write."""
        with self._lock:
            self._write_if_due()

    def finish(self) -> None:
        """Write what is left, due or not."""
        with self._lock:
            self._write_pending()

    def _write_if_due(self) -> None:
        if self._clock() >= self._next_write:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        progress, self._pending = self._pending, None
        self._next_write = self._clock() + MIN_INTERVAL_S
        try:
            self._write(progress)
        except OperationalError as error:
            # A probe of an hour must not fail because its progress could not be noted.
            _log.warning("progress was not stored: %s", error)
