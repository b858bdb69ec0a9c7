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


def test_a_whole_run_waits_for_its_steps_and_holds_back_later_ones() -> None:
    locks, order = StepLocks(), []

    async def step(number: int, run: str = "r") -> None:
        async with locks.hold(run, number):
            order.append(f"{run}{number} begins")
            await asyncio.sleep(0.01)
            order.append(f"{run}{number} ends")

    async def whole(name: str) -> None:
        async with locks.hold_run("r"):
            order.append(f"{name} begins")
            await asyncio.sleep(0.02)
            order.append(f"{name} ends")

    async def many() -> None:
        first = asyncio.gather(step(1), step(2), step(1))
        await asyncio.sleep(0)
        rest = asyncio.gather(whole("A"), whole("B"), step(1), step(3), step(1, "other"))
        await asyncio.gather(first, rest)

    asyncio.run(many())
    begins, ends = order.index("A begins"), order.index("A ends")
    assert ends == begins + 1 and order.index("B ends") == order.index("B begins") + 1
    before = order[:begins]
    assert before.count("r1 ends") == 2 and "r2 ends" in before and "other1 begins" in before
    assert "r3 begins" in order[ends:] and order.count("r1 ends") == 3
    assert not locks._locks and not locks._users and not locks._closed
