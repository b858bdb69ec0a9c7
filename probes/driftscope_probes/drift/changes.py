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
from driftscope_probes.drift.split import FEW, score_at
from driftscope_probes.drift.trend import theil_sen
from driftscope_probes.mismatch.number import FloatArray

#: Schwarz' criterion by which a line has to be better than levels before growth is told: e³ to one.
CLEARLY: Final = 6.0
#: Normal score that a change has to keep when all values around it are known. A detector looks again
#: and again and needs more.
CONFIRMED: Final = 3.5
#: This many changes in one direction are a staircase, if its treads are short or alike.
STAIRCASE: Final = 3
#: Steps of a short tread: what a chart learns a level from, twice.
SHORT_TREAD: Final = 40
#: Treads and rises are alike if none is this many times another one.
ALIKE: Final = 1.5
#: Fewer values are no line.
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


def changes_of(
    values: FloatArray, detected: Sequence[LevelChange], typical: float | None = None
) -> tuple[Change, ...]:
    """values: [n] finite; detected: rising; typical: std that such noise usually has, None where
    nothing is known. As many as things happened, rising: what was detected on the way and is no
    change by all the values is left out."""
    found: list[Change] = []
    left = _without_slips(detected)
    while left:
        start = found[-1].at if found else 0
        change, used = _next_change(values, start, left)
        if found and change.at - start <= FEW:
            # So few values are no level: from the one before them to the one after, or an outlier.
            start = found.pop().start
            change, used = _next_change(values, start, left)
        left = left[used:]
        if change.at > start and _confirmed(values, change, typical):
            found.append(change)
    return tuple(found)


def _confirmed(values: FloatArray, change: Change, typical: float | None) -> bool:
    """A line was weighed against levels already."""
    if change.kind == "growth":
        return True
    at = change.at - change.start
    return score_at(values[change.start : change.end], at, typical) > CONFIRMED


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
    values: FloatArray, start: int, left: Sequence[LevelChange]
) -> tuple[Change, int]:
    """The first of `left`, or a growth that explains several; and how many it explains."""
    at = [change.at for change in left]
    same = _same_direction(values, start, at)
    end = at[same] if same < len(at) else values.size
    growth = _growth(values, start, at[:same], end)
    if growth is not None:
        when, until = growth
        return Change("growth", *when, left[0].found_at, start, until, end), same
    stop = at[1] if len(at) > 1 else values.size
    first, last = max(start, at[0] - WINDOW), min(stop, at[0] + WINDOW)
    shift = shift_at(values[first:last], at[0] - first)
    posterior = shift.posterior
    if last - at[0] >= LINE_AFTER:
        posterior = _mixed(shift, growth_at(values[first:last]))
    when = _indices(dated(posterior), first)
    return Change("shift", *when, left[0].found_at, start, when[0], stop), 1


def _same_direction(values: FloatArray, start: int, at: Sequence[int]) -> int:
    """How many of the changes, from the first on, go the way of the first."""
    parts = np.split(values[start:], [index - start for index in at])
    moves = np.sign(np.diff([float(np.median(part)) for part in parts]))
    other = np.flatnonzero(moves != moves[0])
    return int(other[0]) if other.size else len(at)


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
        if last - at[0] < LINE_AFTER and not _exact_line(values[at[0] : last]):
            continue
        fit = growth_at(window)
        inside = [index - first for index in at if index < last]
        memory = fit.memory
        levels = laplace_criterion(_from_levels(window, inside), 1 + 2 * len(inside), memory)
        if staircase or fit.criterion(3, memory) < levels - CLEARLY:
            posterior = fit.posterior
            if len(inside) == 1 and not staircase:
                posterior = _mixed(shift_at(window, inside[0]), fit)
            return _indices(dated(posterior), first), until
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
    if len(at) < STAIRCASE:
        return False
    treads = np.diff(at)
    if treads.max() <= SHORT_TREAD:
        return True
    levels = [np.median(part) for part in np.split(values[start:end], [i - start for i in at])]
    rises = np.abs(np.diff(levels))
    return bool(treads.max() <= ALIKE * treads.min() and rises.max() <= ALIKE * rises.min())


def _mixed(shift: Fitted, growth: Fitted) -> FloatArray:
    """The posterior over both models, weighed by their criteria (Kass and Raftery, JASA 90, 1995)."""
    difference = shift.criterion(3) - growth.criterion(3)
    if math.isnan(difference):
        return shift.posterior
    weight = 1.0 / (1.0 + math.exp(max(-MAX_EXPONENT, min(MAX_EXPONENT, -difference / 2.0))))
    mixed: FloatArray = weight * growth.posterior + (1.0 - weight) * shift.posterior
    return mixed


def _indices(found: Dated, first: int) -> tuple[int, int, int]:
    return found.at + first, found.low + first, found.high + first
