"""Where the level of one number changed over a run's steps, and at which step that was clear.

Two detectors run side by side from the start of every level: the chart of cusum.py on line, and the
test of split.py at growing looks, which also sees the first steps. A new level begins at a change
(binary segmentation: Vostrikova, Soviet Mathematics Doklady 24, 1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.drift.cusum import WARM_UP, chart
from driftscope_probes.drift.split import AFTER, LATE, Split, best_split, best_window
from driftscope_probes.mismatch.number import FloatArray

#: Exact zeros (bitwise-equal steps) after which the first other value is a change.
ZEROS: Final = 5
#: Steps that have to differ from any other constant: the fewest that the chart needs.
OFF_CONSTANT: Final = 3
#: Normal scores that a split has to reach: among fewer than LATE values, where it is judged anew
#: with every step; among LATE; at a later look. What they cost and find: bench/drift_rates.py.
EARLY_DECISION: Final = 4.0
LATE_DECISION: Final = 4.5
LOOK_DECISION: Final = 5.5
#: The same of a stretch that ended: there are many more of them.
WINDOW_DECISION: Final = 5.5
#: From LATE values on there is a look whenever there are this many times more.
LOOK_GROWTH: Final = 1.15


@dataclass(frozen=True, slots=True)
class LevelChange:
    """Indices in the series: the level changes at `at`, which was clear at `found_at`."""

    at: int
    found_at: int


@dataclass(frozen=True, slots=True)
class LevelChanges:
    changes: tuple[LevelChange, ...]
    outliers: tuple[int, ...]  # single values far from the level of their time


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of a number beforehand, on the scale of its levels."""

    zero: float  # the value that represents an exact zero
    typical: float | None = None  # std from step to step; None: nothing is known
    rare: bool = False  # counts rare events: one value off zero is an outlier


def level_changes(values: Sequence[float], noise: Noise) -> LevelChanges:
    """values: finite. Among the first LATE values of a level a change is judged anew with every
    step; every other one, once found, stays found as the series grows."""
    changes: list[LevelChange] = []
    outliers: set[int] = set()
    start = 0
    while (found := _first_change(values, start, noise, outliers)) is not None:
        outliers.difference_update(range(found.at, found.found_at + 1))
        changes.append(found)
        start = found.at
    return LevelChanges(tuple(changes), tuple(sorted(outliers)))


def _first_change(
    values: Sequence[float], start: int, noise: Noise, outliers: set[int]
) -> LevelChange | None:
    same = _length_of_constant(values, start)
    if start + same == len(values):
        return None
    if values[start] == noise.zero and same >= ZEROS and not noise.rare:
        return LevelChange(start + same, start + same)
    if same >= WARM_UP:
        return _change_from_constant(values, start, outliers)
    early = _early_change(values[start : start + LATE], noise)
    alarm = chart(values, start, outliers) if len(values) - start > WARM_UP else None
    end = len(values) if alarm is None else alarm.at
    if early is not None and start + early.found_at <= end:
        # What the chart took for outliers beyond was seen from another level.
        outliers.difference_update(range(start + early.found_at, len(values)))
        return LevelChange(start + early.at, start + early.found_at)
    late = _late_change(values, start, end, noise)
    if late is not None:
        return late
    if alarm is None:
        return None
    seen = np.asarray(values[start : alarm.at + 1])
    split = best_split(seen, noise.typical, near_ends=True)
    at = alarm.since if split is None else start + split.at
    return LevelChange(at, alarm.at)


def _length_of_constant(values: Sequence[float], start: int) -> int:
    end = start
    while end < len(values) and values[end] == values[start]:
        end += 1
    return end - start


def _change_from_constant(
    values: Sequence[float], start: int, outliers: set[int]
) -> LevelChange | None:
    """Without any noise every deviation counts, once it persists."""
    off = 0
    for index in range(start, len(values)):
        if values[index] == values[start]:
            off = 0
            continue
        off += 1
        outliers.add(index)
        if off == OFF_CONSTANT:
            return LevelChange(index - OFF_CONSTANT + 1, index)
    return None


def _early_change(values: Sequence[float], noise: Noise) -> LevelChange | None:
    """The first change among at most LATE values, judged by all of them."""
    levels = np.asarray(values)
    split = _judged(levels, noise)
    if split is None:
        return None
    # The largest change of several is seen first; what came before it is looked at alike.
    before = _early_change(values[: split.at], noise)
    if before is not None:
        return before
    for count in range(split.at + AFTER, levels.size):
        seen = _judged(levels[:count], noise)
        if seen is not None and abs(seen.at - split.at) <= 1:
            return LevelChange(split.at, count - 1)
    return LevelChange(split.at, levels.size - 1)


def _judged(levels: FloatArray, noise: Noise) -> Split | None:
    split = best_split(levels, noise.typical)
    needed = EARLY_DECISION if levels.size < LATE else LATE_DECISION
    if split is not None and split.score > needed:
        return split
    window = best_window(levels, noise.typical)
    return window if window is not None and window.score > WINDOW_DECISION else None


def _late_change(values: Sequence[float], start: int, end: int, noise: Noise) -> LevelChange | None:
    """At the first look before index `end` that sees one."""
    levels = np.asarray(values[start:end])
    count = int(LATE * LOOK_GROWTH)
    while count <= levels.size:
        split = best_split(levels[:count], noise.typical)
        if split is not None and split.score > LOOK_DECISION:
            return LevelChange(start + split.at, start + count - 1)
        count = int(count * LOOK_GROWTH) + 1
    return None
