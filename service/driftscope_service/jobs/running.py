"""The attempts that run in this process, and the way to stop them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from driftscope_service.jobs.claims import Claim, Fence
from driftscope_service.jobs.executors.base import StopReason, StopSignal


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    claim: Claim
    left_s: float  # of the time that all attempts of the job may take together
    stop: StopSignal = field(default_factory=StopSignal)
    began: float = field(default_factory=time.monotonic)

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() > self.began + self.left_s


class RunningAttempts:
    """Used by every slot, by the requests that cancel, and by the keeper of leases."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Fence, RunningAttempt] = {}

    @contextmanager
    def entered(self, attempt: RunningAttempt) -> Iterator[None]:
        fence = attempt.claim.fence
        with self._lock:
            self._running[fence] = attempt
        try:
            yield
        finally:
            with self._lock:
                del self._running[fence]

    def all(self) -> list[RunningAttempt]:
        with self._lock:
            return list(self._running.values())

    def stop_job(self, job_id: str, reason: StopReason) -> None:
        for attempt in self.all():
            if attempt.claim.job.id == job_id:
                attempt.stop.request(reason)

    def stop_all(self, reason: StopReason) -> None:
        for attempt in self.all():
            attempt.stop.request(reason)
