"""Progress: seldom, never stale, never fatal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from driftscope_probes.progress import Progress
from driftscope_service.jobs.executors.base import MIN_INTERVAL_S, ProgressWriter

EIGHTH = 0.125


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8))))
def test_at_most_two_per_second_and_the_last_one_always(steps: list[tuple[bool, int]]) -> None:
    """A step offers progress or only flushes, some time after the step before."""
    clock, written = Clock(), list[tuple[float, Progress]]()
    writer = ProgressWriter(lambda progress: written.append((clock.now, progress)), clock)
    offered = []
    for index, (offers, pause) in enumerate(steps):
        clock.now += pause * EIGHTH  # exact, so that sums are
        if offers:
            offered.append(Progress(str(index), 0.5))
            writer.offer(offered[-1])
        writer.flush()
    times = [time for time, _ in written]
    assert all(
        later - earlier >= MIN_INTERVAL_S for earlier, later in zip(times, times[1:], strict=False)
    )
    writer.finish()
    seen = [progress for _, progress in written]
    assert seen[-1:] == offered[-1:]
    assert seen == [progress for progress in offered if progress in seen]  # in order, each once


def test_what_came_too_soon_is_written_when_it_is_due() -> None:
    clock, written = Clock(), list[Progress]()
    writer = ProgressWriter(written.append, clock)
    writer.offer(Progress("first", 0.1))
    writer.offer(Progress("second", 0.2))
    writer.flush()
    assert [progress.stage for progress in written] == ["first"]
    clock.now = MIN_INTERVAL_S
    writer.flush()
    assert [progress.stage for progress in written] == ["first", "second"]


def test_a_database_that_fails_does_not_reach_the_probe() -> None:
    def fail(_: Progress) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    ProgressWriter(fail).offer(Progress("stage", 0.5))
