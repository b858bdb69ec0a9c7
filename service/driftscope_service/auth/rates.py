"""How often, and how much at once: for keys, for addresses, for wrong keys.

Counted in the memory of this process and in its event loop: each instance of the service counts for
itself, and a restart forgets.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0
#: Far more keys or clients than a service has; 100 bytes each. The one unseen for longest goes.
MOST_KNOWN: Final = 4096
#: So far apart are two moments of the clock that calculation alone may take apart.
_ROUNDING_S: Final = 1e-6
#: Requests end within milliseconds, pushes within seconds.
AT_ONCE_RETRY_S: Final = 1

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Taken:
    allowed: bool
    left: int  # requests that would be allowed now
    wait_s: float  # until one more is allowed; 0: now

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, as Retry-After has them."""
        return max(1, math.ceil(self.wait_s))


class Rate:
    """Token buckets: one holds as many requests as are allowed in a minute, and is refilled evenly.

    Kept as the moment at which a bucket is full again (GCRA), so that each takes one number and no
    timer. The package `limits` starts a thread after every hit to forget old ones.
    """

    def __init__(self, clock: Clock = time.monotonic, *, most: int = MOST_KNOWN) -> None:
        self._clock = clock
        self._most = most
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, who: str, per_minute: int) -> Taken:
        now, apart_s = self._clock(), WINDOW_S / per_minute
        full_at = max(now, self._full_at.get(who, now))
        after = full_at + apart_s
        wait_s = after - now - WINDOW_S
        if wait_s > _ROUNDING_S:
            return Taken(False, 0, wait_s)
        self._remember(who, after)
        left = int((WINDOW_S - (after - now) + _ROUNDING_S) / apart_s)
        return Taken(True, left, max(0.0, wait_s + apart_s))

    def _remember(self, who: str, full_at: float) -> None:
        self._full_at[who] = full_at
        self._full_at.move_to_end(who)
        while len(self._full_at) > self._most:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


class AtOnce:
    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    @contextmanager
    def hold(self, who: str, most: int) -> Iterator[bool]:
        """False where `most` are held already, and then none is held."""
        if self._running.get(who, 0) >= most:
            yield False
            return
        self._running[who] += 1
        try:
            yield True
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]

    def __len__(self) -> int:
        return len(self._running)
