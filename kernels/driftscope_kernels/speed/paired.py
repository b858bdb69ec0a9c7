"""Ways to do the same thing, timed in turns: load on the machine then meets all of them alike.

In: functions without arguments. Out: seconds per call, one figure per round and way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from torch import Tensor

# A way runs this long per round at least: well above the clock's step and a scheduler's slice.
ROUND_SECONDS = 0.004

Way = Callable[[], Tensor]


def alternate(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each way, one figure per round; the first call of each is not counted."""
    repeats = {}
    for name, way in ways.items():
        way()
        begin = time.perf_counter()
        way()
        repeats[name] = max(1, int(ROUND_SECONDS / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                way()
            times[name].append((time.perf_counter() - begin) / repeats[name])
    return times


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over rounds of theirs to ours; above 1: ours is faster."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))


def best_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The fastest round of each: what remains when a loaded machine left both alone once."""
    return min(theirs) / min(ours)
