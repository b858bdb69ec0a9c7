"""How long a body may take to arrive: between two pieces, at a least rate, and in all.

Only the time that is spent waiting for the client counts, not what the service takes meanwhile.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import HttpProblem

#: The rate is taken over this time: a network may be still for a while.
WINDOW_S: Final = 10.0
#: An upload below SLOW_BYTES_PER_S for so long makes room for another one that waits.
SLOW_AFTER_S: Final = 2.0
#: A trainer's network brings a thousand times as much.
SLOW_BYTES_PER_S: Final = 65_536.0
#: Under this name the state of a request has the clock of its body.
CLOCK: Final = "body_clock"


@dataclass(frozen=True, slots=True)
class BodyPace:
    idle_s: float
    total_s: float
    least_bytes_per_s: float


class BodyClock:
    """Of one body. Whoever holds it may end the wait for the next piece."""

    def __init__(self, pace: BodyPace) -> None:
        self._pace = pace
        self._waited_s = self._still_s = self._window_s = self._recent_s = 0.0
        self._window_bytes = self._recent_bytes = 0
        self._waiting: asyncio.Timeout | None = None
        self._began = 0.0
        self._evicted = False

    async def next_piece(self, receive: Receive) -> Message:
        """Raises HttpProblem (408)."""
        loop = asyncio.get_running_loop()
        while True:
            self._began = loop.time()
            try:
                async with asyncio.timeout(self._allowed_s()) as self._waiting:
                    message = await receive()
            except TimeoutError:
                self._note(loop.time() - self._began, 0)
                self._check()
                continue
            finally:
                self._waiting = None
            self._note(loop.time() - self._began, len(message.get("body", b"")))
            self._check()
            return message

    def rate_if_slow(self) -> float | None:
        """Bytes per second, where it has been slow and waits for the client now."""
        if self._waiting is None:
            return None
        waited_s = self._recent_s + asyncio.get_running_loop().time() - self._began
        if waited_s < SLOW_AFTER_S:
            return None
        rate = self._recent_bytes / waited_s
        return rate if rate < SLOW_BYTES_PER_S else None

    def evict(self) -> None:
        """Ends the request: another one waits for its slot."""
        self._evicted = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def _allowed_s(self) -> float:
        pace = self._pace
        left = [pace.idle_s - self._still_s, pace.total_s - self._waited_s]
        if pace.least_bytes_per_s:
            left.append(WINDOW_S - self._window_s)
        return max(0.0, min(left))

    def _note(self, waited_s: float, received: int) -> None:
        self._waited_s += waited_s
        self._still_s = 0.0 if received else self._still_s + waited_s
        self._window_s += waited_s
        self._window_bytes += received
        self._recent_s += waited_s
        self._recent_bytes += received
        # Halved, so that what was long ago counts ever less.
        if self._recent_s > 2 * SLOW_AFTER_S:
            self._recent_s, self._recent_bytes = self._recent_s / 2, self._recent_bytes // 2

    def _check(self) -> None:
        pace = self._pace
        if self._evicted:
            raise _late(f"it was slower than {SLOW_BYTES_PER_S:.0f} bytes per second, while others "
                        "waited for its place")  # fmt: skip
        if self._still_s >= pace.idle_s:
            raise _late(f"nothing of the body arrived for {pace.idle_s:g} seconds")
        if self._waited_s >= pace.total_s:
            raise _late(f"the body did not arrive within {pace.total_s:g} seconds")
        if self._window_s < WINDOW_S:
            return
        if self._window_bytes < pace.least_bytes_per_s * self._window_s:
            raise _late(
                f"{self._window_bytes} bytes of the body arrived in {math.ceil(self._window_s)} "
                f"seconds, at least {pace.least_bytes_per_s:g} per second are expected"
            )
        self._window_s, self._window_bytes = 0.0, 0


def _late(detail: str) -> HttpProblem:
    # Bytes that may still arrive no longer belong to a request.
    return HttpProblem(problem_kinds.UPLOAD_TIMEOUT, detail, headers={"Connection": "close"})


class BodyPacing:
    """Of every body, whichever route reads it."""

    def __init__(self, app: ASGIApp, pace: BodyPace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        clock = BodyClock(self._pace)
        scope["state"][CLOCK] = clock
        ended = False

        async def paced() -> Message:
            nonlocal ended
            # After the body a route may wait for the client to leave, for as long as it likes.
            if ended:
                return await receive()
            message = await clock.next_piece(receive)
            ended = not message.get("more_body", False)
            return message

        await self._app(scope, paced, send)
