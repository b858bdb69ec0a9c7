"""The interface to what carries out a job: a process here, or a process on a node of a cluster.

In: the request of a job and an empty folder. Out: its report, in that folder the files that it
names. Whatever carries it out, the same request gives the same report bit for bit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import OperationalError

from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress, ProgressSink

_log = logging.getLogger("driftscope")
#: Each write is an fsync; a person would not notice a faster change.
MIN_INTERVAL_S = 0.5


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


class StopReason(Enum):
    CANCELLED = "cancelled"  # its user asked for it
    TIMED_OUT = "timed out"
    OUT_OF_TIME = "out of time"  # all attempts together
    SERVICE_STOPPED = "service stopped"
    LEASE_LOST = "lease lost"  # the job is another owner's: whatever comes of it is discarded


class StopSignal:
    """The first reason counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: StopReason | None = None

    def request(self, reason: StopReason) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason

    @property
    def reason(self) -> StopReason | None:
        return self._reason


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt at a job."""

    job_id: str
    attempt: int  # 1, 2, 3 …
    request: Mapping[str, Any]  # with its kind
    workdir: Path  # of this attempt alone, on this machine


class NodeLost(ProbeError):
    """The machine that a probe ran on is gone, or does not answer any more."""


class Executor(Protocol):
    @property
    def name(self) -> str:
        """As settings, attempts and metrics have it."""
        ...

    @property
    def time_limit_s(self) -> float: ...

    def run(self, work: Work, stop: StopSignal, progress: ProgressWriter) -> dict[str, Any]:
        """Returns the report. Raises Cancelled, where `stop` names the reason; NodeLost, after
        which another attempt may succeed; any other ProbeError of the probe. No process of the
        attempt is left, here or elsewhere, when it returns or raises."""
        ...
