"""One request at a time per step: two equal uploads at once become one step and one repetition."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StepLocks:
    """For one event loop. Holds a lock only while somebody uses it."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}
        self._users: Counter[tuple[str, int]] = Counter()

    @asynccontextmanager
    async def hold(self, run: str, step: int) -> AsyncIterator[None]:
        key = (run, step)
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
