"""Detected changes of one number → what they are, shift or growth, and when they began.

A line that begins at a knee passes the limits of a chart again and again: such a staircase is one
growth, dated at its knee. Everything here sees all values, not only those before an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.drift.dating import (
    LINE_AFTER,
    WINDOW,
    Dated,
    Fitted,
    Shape,
    dated,
    growth_at,
    laplace_criterion,
    shift_at,
)
from driftscope_probes.drift.detection import LevelChange
from driftscope_probes.drift.split import AFTER, FEW, MAD_CONSISTENCY, score_at
from driftscope_probes.drift.trend import theil_sen
from driftscope_probes.mismatch.number import FloatArray

#: Schwarz' criterion by which a line has to be better than levels to be told: e³ to one.
CLEARLY: Final = 6.0
#: Normal score that a change has to keep when all values around it are known. A detector, which
#: looks again and again, needs more.
CONFIRMED: Final = 3.5
#: This many changes in one direction are a staircase, if its treads are short or alike.
STAIRCASE: Final = 3
#: Steps of a short tread: what a chart learns a level from, twice.
SHORT_TREAD: Final = 40
#: Treads and rises are alike if none is this many times another one.
ALIKE: Final = 1.5
#: Stds by which values have to miss a line, where it would have gone on, to be a jump beside it.
OFF_LINE: Final = 3.0
#: Fewer values do not make a line.
MIN_LINE: Final = 3
#: exp() of more overflows.
MAX_EXPONENT: Final = 700.0


@dataclass(frozen=True, slots=True)
class Change:
    """Indices in the series. The level before it begins at `start`, where the change before is; the
    level or line after it ends at `end`, where the next one is."""

    kind: Shape
    at: int  # the first value that differs
    low: int  # 95 % interval of `at`
    high: int
    found_at: int
    start: int
    grows_until: int  # growth: index at which the line ends; a shift: `at`
    end: int
    goes_on: bool = False  # a shift beside a line that goes on


def changes_of(
    values: FloatArray, detected: Sequence[LevelChange], typical: float | None = None
) -> tuple[Change, ...]:
    """values: [n] finite; detected: rising; typical: std that such noise usually has, None where
    nothing is known. As many as things happened, rising: what was detected on the way and is no
    change by all the values is left out."""
    found: list[Change] = []
    left = _without_slips(detected)
    while left:
        change, used = _next_change(values, found[-1] if found else None, left)
        if found and change.at - found[-1].at <= FEW:
            # So few values do not make a level: from the one before them to the one after, or an
            # outlier.
            found.pop()
            change, used = _next_change(values, found[-1] if found else None, left)
        left = left[used:]
        if change.at > change.start and _confirmed(values, change, found, typical):
            found.append(change)
    return tuple(found)


def _confirmed(
    values: FloatArray, change: Change, found: Sequence[Change], typical: float | None
) -> bool:
    """A growth was weighed against levels already, and a constant has no noise to weigh."""
    part = values[change.start : change.end]
    if change.kind == "growth" or _constant(part[: change.at - change.start]):
        return True
    at = change.at - change.start
    if found and found[-1].kind == "growth" and at >= MIN_LINE:
        part = part - _line_before(part, at, goes_on=change.goes_on)
    score = score_at(part, at, typical)
    if change.end - change.at < AFTER and math.isfinite(score):
        return False
    return score > CONFIRMED


def _constant(values: FloatArray) -> bool:
    return values.size >= AFTER and bool(np.all(values == values[0]))


def _line_before(values: FloatArray, at: int, *, goes_on: bool) -> FloatArray:
    """[n]: the line of values[:at], which beyond goes on or stays where it came to."""
    times = np.arange(values.size, dtype=np.float64)
    slope, intercept = theil_sen(times[:at], values[:at])
    line: FloatArray = slope * (times if goes_on else np.minimum(times, at)) + intercept
    return line


def structure_residuals(values: FloatArray, changes: Sequence[Change]) -> FloatArray:
    """[n]: values less the levels and lines of the changes."""
    found = values - np.median(values[: changes[0].at] if changes else values)
    for change in changes:
        line, level = slice(change.at, change.grows_until), slice(change.grows_until, change.end)
        if change.kind == "growth":
            found[line] = _from_line(values[line])
        if change.grows_until < change.end:
            found[level] = values[level] - np.median(values[level])
    return found


def _from_line(values: FloatArray) -> FloatArray:
    times = np.arange(values.size)
    if values.size < MIN_LINE:
        return values - np.median(values)
    slope, intercept = theil_sen(times.astype(np.float64), values)
    residuals: FloatArray = values - slope * times - intercept
    return residuals


def _without_slips(detected: Sequence[LevelChange]) -> list[LevelChange]:
    """Two detections FEW values apart are one change, first placed beside it."""
    kept: list[LevelChange] = []
    for change in detected:
        if kept and change.at - kept[-1].at <= FEW:
            kept[-1] = LevelChange(kept[-1].at, min(kept[-1].found_at, change.found_at))
        else:
            kept.append(change)
    return kept


def _next_change(
    values: FloatArray, before: Change | None, left: Sequence[LevelChange]
) -> tuple[Change, int]:
    """The first of `left`, or a growth that explains several; and how many it explains. `before`:
    the change before it."""
    start = 0 if before is None else before.at
    at = [change.at for change in left]
    stop = at[1] if len(at) > 1 else values.size
    same = _same_direction(values, start, at)
    end = at[same] if same < len(at) else values.size
    constant = _constant(values[start : at[0]])
    if constant and _line_ends(values, at[0]) - at[0] >= MIN_LINE:
        return _ramp(values, start, left)
    jump = _jump(values, start, at[:same], end)
    if jump is not None:
        same, end = jump, at[jump]
    growth = _growth(values, start, at[:same], end)
    if growth is not None:
        when, until = growth
        if constant:
            when = at[0], at[0], at[0]
        return Change("growth", *when, left[0].found_at, start, until, end), same
    if constant:
        # Without noise the first other value is the date.
        return Change("shift", at[0], at[0], at[0], left[0].found_at, start, at[0], stop), 1
    if before is not None and before.kind == "growth" and at[0] - start >= MIN_LINE:
        posterior, first, goes_on = _beside_a_line(values, start, at[0], stop)
    else:
        posterior, first, goes_on = *_shift(values, start, at[0], stop), False
    when = _indices(dated(posterior), first)
    return Change("shift", *when, left[0].found_at, start, when[0], stop, goes_on), 1


def _line_ends(values: FloatArray, at: int) -> int:
    """Index up to which every value is as far from the one before as values[at] is."""
    rises = np.diff(values[at - 1 :])
    other = np.flatnonzero(rises != rises[0])
    return at + (int(other[0]) if other.size else rises.size)


def _ramp(values: FloatArray, start: int, left: Sequence[LevelChange]) -> tuple[Change, int]:
    """1, 2, 3 after nothing but 0: one growth for as long as it goes up by the same."""
    at, until = left[0].at, _line_ends(values, left[0].at)
    used = sum(change.at <= until for change in left)
    stop = left[used].at if used < len(left) else values.size
    return Change("growth", at, at, at, left[0].found_at, start, until, stop), used


def _shift(values: FloatArray, start: int, at: int, stop: int) -> tuple[FloatArray, int]:
    """The posterior from index `first` on, and `first`."""
    first, last = max(start, at - WINDOW), min(stop, at + WINDOW)
    shift = shift_at(values[first:last], at - first)
    if last - at < LINE_AFTER:
        return shift.posterior, first
    return _mixed(shift, growth_at(values[first:last])), first


def _beside_a_line(
    values: FloatArray, start: int, at: int, stop: int
) -> tuple[FloatArray, int, bool]:
    """As _shift, and whether the line goes on after it."""
    first, last = max(start, at - WINDOW), min(stop, at + WINDOW)
    part, guess = values[first:last], at - first
    line = _line_before(part, guess, goes_on=True)
    to_level = shift_at(part, guess, line)
    beside = shift_at(part - line, guess)
    goes_on = beside.criterion(3) < to_level.criterion(3)
    return (beside if goes_on else to_level).posterior, first, goes_on


def _same_direction(values: FloatArray, start: int, at: Sequence[int]) -> int:
    """How many of the changes, from the first on, go the way of the first."""
    bounds = [start, *at, values.size]
    level, way = float(np.median(values[start : at[0]])), 0.0
    for index in range(len(at)):
        reached = float(np.median(values[bounds[index + 1] : bounds[index + 2]]))
        move = np.sign(reached - level)
        if index == 0:
            way = move
        elif move != way:
            return index
        level = reached
    return len(at)


def _jump(values: FloatArray, start: int, at: Sequence[int], end: int) -> int | None:
    """Which of the changes, all one way, leaves the line that the ones before it follow, if any."""
    if len(at) < 2:
        return None
    levels = [
        float(np.median(part)) for part in np.split(values[start:end], [i - start for i in at])
    ]
    largest = int(np.argmax(np.abs(np.diff(levels[1:])))) + 1
    first, last = max(start, at[0] - WINDOW), min(end, at[largest] + WINDOW)
    until = at[largest]
    if until - at[0] < LINE_AFTER:
        return None
    line = growth_at(values[first:until])
    two = np.concatenate([line.residuals, _from_line(values[until:last])])
    one = growth_at(values[first:last])
    noise = MAD_CONSISTENCY * float(np.median(np.abs(two)))
    reached = float(np.median(values[until : until + LINE_AFTER]))
    led_to = float(values[until - 1] - line.residuals[-1]) + line.slope * LINE_AFTER / 2.0
    if abs(reached - led_to) <= OFF_LINE * noise:
        return None
    better = laplace_criterion(two, 6) + CLEARLY < laplace_criterion(one.residuals, 3)
    return largest if better else None


def _growth(
    values: FloatArray, start: int, at: Sequence[int], end: int
) -> tuple[tuple[int, int, int], int] | None:
    """Index and interval of the knee, and the index at which the line ends; None: levels say it."""
    first = max(start, at[0] - WINDOW)
    staircase = _staircase(values, start, at, end)
    # The line may go on up to `end`, or have ended where the last change led to a level.
    for until in (end, at[-1]) if len(at) > 1 else (end,):
        last = min(until, at[0] + WINDOW)
        window = values[first:last]
        fewest = MIN_LINE if _exact_line(values[at[0] : last]) else LINE_AFTER
        if last - at[0] < fewest:
            continue
        fit = growth_at(window)
        inside = [index - first for index in at if index < last]
        memory = fit.memory
        levels = laplace_criterion(_from_levels(window, inside), 1 + 2 * len(inside), memory)
        if staircase or fit.criterion(3, memory) < levels - CLEARLY:
            posterior = fit.posterior
            if len(inside) == 1 and not staircase:
                posterior = _mixed(shift_at(window, inside[0]), fit)
            when = _indices(dated(posterior), first)
            if last - when[0] >= fewest:
                return when, until
    return None


def _exact_line(values: FloatArray) -> bool:
    """1, 2, 3: nothing but a count that goes up every step, such as a lag, does that."""
    rises = np.diff(values)
    return rises.size + 1 >= MIN_LINE and rises[0] != 0.0 and bool(np.all(rises == rises[0]))


def _from_levels(values: FloatArray, at: Sequence[int]) -> FloatArray:
    parts = np.split(values, at)
    residuals: FloatArray = np.concatenate([part - np.median(part) for part in parts])
    return residuals


def _staircase(values: FloatArray, start: int, at: Sequence[int], end: int) -> bool:
    if len(at) < STAIRCASE or _exact_line(values[at[0] : at[-1] + 1]):
        return False
    treads = np.diff(at)
    if treads.max() <= SHORT_TREAD:
        return True
    levels = [np.median(part) for part in np.split(values[start:end], [i - start for i in at])]
    rises = np.abs(np.diff(levels))
    return bool(treads.max() <= ALIKE * treads.min() and rises.max() <= ALIKE * rises.min())


def _mixed(shift: Fitted, growth: Fitted) -> FloatArray:
    """The posterior over both models, weighed by criterion (Kass and Raftery, JASA 90, 1995)."""
    difference = shift.criterion(3) - growth.criterion(3)
    if math.isnan(difference):
        return shift.posterior
    weight = 1.0 / (1.0 + math.exp(max(-MAX_EXPONENT, min(MAX_EXPONENT, -difference / 2.0))))
    mixed: FloatArray = weight * growth.posterior + (1.0 - weight) * shift.posterior
    return mixed


def _indices(found: Dated, first: int) -> tuple[int, int, int]:
    return found.at + first, found.low + first, found.high + first
