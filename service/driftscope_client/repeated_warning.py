"""Warnings of a loop that runs for days: the first at once, then at most one per interval.

In: messages. Out: log lines on `driftscope_client`, each with the number of those left out since.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

#: A step takes seconds to minutes: one line per minute says enough and hides nothing for long.
INTERVAL_S = 60.0

log = logging.getLogger("driftscope_client")


class RepeatedWarning:
    def __init__(
        self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at = float("-inf")
        self._left_out = 0

    def warn(self, message: str) -> None:
        with self._lock:
            now = self._clock()
            if now < self._next_at:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
            self._next_at = now + self._interval_s
        more = f" ({left_out} more such warnings since the last one)" if left_out else ""
        log.warning("%s%s", message, more)
