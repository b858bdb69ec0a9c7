"""How slowly a body may arrive, by a clock that the tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from driftscope_service.http.body_pace import BodyClock, BodyPace
from driftscope_service.http.errors import HttpProblem


class Turned(asyncio.SelectorEventLoop):
    """Its time is that of the next timer: nothing waits, and hours pass in a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        timers = [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self._now = max(self._now, min(timers))
        super()._run_once()  # type: ignore[misc]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=Turned) as runner:
        return runner.run(coroutine)


async def arrive(
    pace: BodyPace, pieces: list[tuple[float, int]], worked_s: float = 0.0
) -> tuple[str, float]:
    """`pieces`: seconds until each, and its size. What ended it, and when."""
    clock = BodyClock(pace)
    loop = asyncio.get_running_loop()
    waiting = iter(pieces)
    pending: asyncio.Task[None] | None = None
    size = 0

    async def receive() -> Any:
        # As a connection does: a wait that was given up goes on with the next.
        nonlocal pending, size
        if pending is None:
            after, size = next(waiting)
            pending = asyncio.create_task(asyncio.sleep(after))
        await asyncio.shield(pending)
        pending = None
        return {"type": "http.request", "body": b"x" * size, "more_body": True}

    try:
        for _ in pieces:
            await clock.next_piece(receive)
            await asyncio.sleep(worked_s)
    except HttpProblem as problem:
        assert problem.status_code == 408
        return str(problem.detail), loop.time()
    return "", loop.time()


PACE = BodyPace(idle_s=30, total_s=600, least_bytes_per_s=4096)


@pytest.mark.parametrize(
    ("pieces", "told", "ended"),
    [
        ([(0.0, 100), (29.0, 300_000)], "", 29),
        ([(0.0, 100), (99.0, 1)], "bytes of the body arrived in 10 seconds", 10),
        ([(5.0, 1)] * 1000, "1 bytes of the body arrived in 10 seconds", 10),
        ([(1.0, 4095)] * 1000, "bytes of the body arrived in 10 seconds", 10),
        ([(1.0, 5000)] * 300, "", 300),
        ([(1.0, 5000)] * 1000, "did not arrive within 600 seconds", 600),
    ],
)
def test_rates_and_deadlines(pieces: list[tuple[float, int]], told: str, ended: float) -> None:
    if told == "" and pieces[1][0] > 10:
        pace = BodyPace(idle_s=30, total_s=600, least_bytes_per_s=0)
    else:
        pace = PACE
    said, when = run(arrive(pace, pieces))
    assert told in said and bool(told) == bool(said)
    assert when == pytest.approx(ended, abs=1.1)


def test_without_a_rate_the_pause_ends_it() -> None:
    pace = BodyPace(idle_s=30, total_s=600, least_bytes_per_s=0)
    said, when = run(arrive(pace, [(0.0, 1), (31.0, 1)]))
    assert "nothing of the body arrived for 30 seconds" in said and when == 30
    # Pieces of nothing are no pieces.
    said, when = run(arrive(pace, [(0.0, 1)] + [(10.0, 0)] * 9))
    assert "for 30 seconds" in said and when == 30


def test_what_the_service_takes_does_not_count() -> None:
    """A slow disk, an analysis of the first half: the client waits then, not we."""
    pieces = [(0.1, 2**16)] * 50
    assert run(arrive(PACE, pieces, worked_s=60.0))[0] == ""


def test_a_slow_one_makes_room() -> None:
    async def held() -> tuple[list[bool], str]:
        clock = BodyClock(BodyPace(idle_s=30, total_s=600, least_bytes_per_s=0))
        waits = asyncio.Event()
        slow = []

        async def receive() -> Any:
            await waits.wait()

        task = asyncio.create_task(clock.next_piece(receive))
        for _ in range(4):
            await asyncio.sleep(1.0)
            slow.append(clock.rate_if_slow() is not None)
        clock.evict()
        with pytest.raises(HttpProblem) as ended:
            await task
        return slow, str(ended.value.detail)

    slow, said = run(held())
    assert slow == [False, True, True, True]
    assert "while others waited for its place" in said


def test_a_fast_one_does_not() -> None:
    async def held() -> list[float | None]:
        clock = BodyClock(PACE)
        found = []

        async def receive() -> Any:
            await asyncio.sleep(0.5)
            found.append(clock.rate_if_slow())
            return {"type": "http.request", "body": b"x" * 2**16, "more_body": True}

        for _ in range(40):
            await clock.next_piece(receive)
        found.append(clock.rate_if_slow())  # it does not wait for the client now
        return found

    assert set(run(held())) == {None}
