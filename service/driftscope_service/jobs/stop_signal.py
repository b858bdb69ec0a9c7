"""Why a running probe must end before it is through; set by one thread, obeyed by another."""

from __future__ import annotations

import threading
from enum import Enum


class StopReason(Enum):
    CANCELLED = "cancelled"  # its user asked for it
    TIMED_OUT = "timed out"
    SERVICE_STOPPED = "service stopped"


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
