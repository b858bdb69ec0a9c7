"""One request at a time per step, and no lock that stays behind."""

from __future__ import annotations

import asyncio

from driftscope_service.runs.ingest.intake import StepLocks


def test_one_at_a_time_per_step() -> None:
    locks, inside, most = StepLocks(), {1: 0, 2: 0}, {1: 0, 2: 0}
    at_once = 0

    async def hold(step: int) -> None:
        nonlocal at_once
        async with locks.hold("r", step):
            inside[step] += 1
            most[step] = max(most[step], inside[step])
            at_once = max(at_once, sum(inside.values()))
            await asyncio.sleep(0.01)
            inside[step] -= 1

    async def many() -> None:
        await asyncio.gather(*(hold(step) for step in (1, 2, 1, 2, 1)))

    asyncio.run(many())
    assert most == {1: 1, 2: 1}
    assert at_once == 2
    assert not locks._locks and not locks._users
