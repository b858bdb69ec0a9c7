"""A bounded queue that one thread drains, and its warnings, each at most once a minute."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
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
        self._working: tuple[Item, ...] = ()  # the one under way
        self._backlog_since = 0.0  # time.monotonic() of the put that ended the latest emptiness
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
            if not self._items:
                self._backlog_since = time.monotonic()
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

    @property
    def backlog_since(self) -> float:
        """time.monotonic(): since when it has not been empty."""
        return self._backlog_since

    def close(self) -> list[Item]:
        """Accept nothing more, and return what waits and will not be worked on."""
        with self._changed:
            self._closed = True
            left = [item for item, _ in self._waiting]
            self._items -= len(left)
            self._bytes -= sum(size for _, size in self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        return left

    def under_way(self) -> tuple[Item, ...]:
        """The item that is being worked on, or none."""
        return self._working

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
                self._working = (item,)
            try:
                self._work(item)
            finally:
                del item
                with self._changed:
                    self._working = ()
                    self._items -= 1
                    self._bytes -= size
                    self._changed.notify_all()


#: A step takes seconds to minutes: one line per minute says enough and hides nothing for long.
INTERVAL_S = 60.0

log = logging.getLogger("driftscope_client")


class RepeatedWarning:
    """One line a minute for each `kind` of warning, so that no kind hides another."""

    def __init__(
        self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def warn(self, kind: str, message: str) -> None:
        """`kind`: of a small set, such as the reason of a failure."""
        with self._lock:
            now = self._clock()
            if now < self._next_at.get(kind, float("-inf")):
                self._left_out[kind] += 1
                return
            left_out = self._left_out.pop(kind, 0)
            self._next_at[kind] = now + self._interval_s
        more = f" ({left_out} more such warnings since the last one)" if left_out else ""
        log.warning("%s%s", message, more)
