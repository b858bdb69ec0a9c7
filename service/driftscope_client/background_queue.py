"""A bounded queue that one thread drains, and its warnings, each at most once a minute."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BackgroundQueue(Generic[Item]):
    """`work` must not raise. The thread starts with the first item; it does not hold up an exit."""

    def __init__(self, work: Callable[[Item], None], *, max_items: int, max_bytes: int) -> None:
        self._work = work
        self._max_items, self._max_bytes = max_items, max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Item, int]] = deque()
        self._items = self._bytes = 0  # waiting and being worked on
        self._closed = False
        self._thread: threading.Thread | None = None

    def has_room(self, size: int) -> bool:
        with self._changed:
            return self._has_room(size)

    def put(self, item: Item, size: int) -> bool:
        with self._changed:
            if not self._has_room(size):
                return False
            self._waiting.append((item, size))
            self._items += 1
            self._bytes += size
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="driftscope-push", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        return True

    def flush(self, timeout_s: float | None) -> bool:
        """Whether the queue was drained in time. None: waits as long as it takes."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items, timeout_s)

    def close(self) -> int:
        """Accept nothing more, drop what waits, and return how many items were dropped."""
        with self._changed:
            self._closed = True
            left = len(self._waiting)
            self._items -= left
            self._bytes -= sum(size for _, size in self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        return left

    def _has_room(self, size: int) -> bool:
        fits = self._items < self._max_items and self._bytes + size <= self._max_bytes
        return fits and not self._closed

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                item, size = self._waiting.popleft()
            try:
                self._work(item)
            finally:
                del item
                with self._changed:
                    self._items -= 1
                    self._bytes -= size
                    self._changed.notify_all()


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
