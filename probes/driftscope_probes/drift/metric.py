"""Drift of one number over the steps of a run: its state, its changes, its trend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from driftscope_probes.drift.changes import Change, changes_of, structure_residuals
from driftscope_probes.drift.cusum import WARM_UP
from driftscope_probes.drift.dating import Shape, laplace_criterion
from driftscope_probes.drift.detection import Noise, level_changes
from driftscope_probes.drift.events import ratio_of
from driftscope_probes.drift.resumption import Resumption, resumption
from driftscope_probes.drift.split import MAD_CONSISTENCY
from driftscope_probes.drift.trend import MIN_STEPS, Trend, trend
from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.numbers import NumberRow, ScaleKind

State = Literal["not_enough_steps", "steady", "shifted", "trending"]
#: Represents log 0. Far below any log of a measured difference, and finite: one bitwise-equal step
#: among others is then an outlier like any other.
LOG_OF_ZERO: Final = math.log(1e-300)
#: Std from step to step that a number on the scale of logarithms usually has: a mean over the
#: tokens of one step moves by 7 to 12 % in the recorded runs of the demo.
TYPICAL_NOISE: Final = 0.1
#: Shares of tokens that are rarely there at all: one such token is not a change of level.
RARE: Final = frozenset({"abs_diff_share_above_ln2", "confident_disagreement_share"})
#: A trend is reported below this p-value if its line moves by MIN_MOVE stds of the noise.
TREND_LEVEL: Final = 1e-4
MIN_MOVE: Final = 1.0
#: Most changes, alarms and outliers reported, the newest of each: a series with more has no levels,
#: or heavy tails instead of outliers, and the size of an answer is limited.
MAX_TOLD: Final = 100
#: Beyond it squares overflow; no number of a comparison means anything there, and limits tell it.
LARGEST: Final = 1e150
#: exp() of more overflows; larger factors are reported as e^700.
MAX_EXPONENT: Final = 700.0
#: Values at the end of a growth, the median of which is what it has come to.
LATEST: Final = 3


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """`before` and `after` are medians of the steps between this change and the ones around it, in
    the number's unit; `after` of a growth that goes on is what it has come to."""

    step: int  # first one that differs: the likeliest by all steps around it
    low: int  # 95 % interval of `step`
    high: int
    kind: Shape
    found_at: int  # step at which it was clear
    before: float
    after: float
    ratio: float | None  # after / before; None where before is 0
    noise_units: float | None  # size in stds of the noise; None: there is no noise


@dataclass(frozen=True, slots=True)
class TrendPer100:
    """log: relative change of the distance from the ideal (0.5 is +50 %); linear: the unit."""

    per_100_steps: float
    low: float  # 95 % interval
    high: float
    p_value: float
    from_step: int


@dataclass(frozen=True, slots=True)
class Baseline:
    center: float  # median, in the number's unit
    spread: float  # from step to step; log: relative, linear: in the number's unit
    steps: int


@dataclass(frozen=True, slots=True)
class MetricDrift:
    state: State
    scale: ScaleKind
    steps: int  # with a value
    missing: int  # without
    baseline: Baseline | None  # from the steps before the first change
    changes: int  # all level changes
    change_points: tuple[ChangePoint, ...]  # the newest MAX_TOLD; none if one trend says more
    trend: TrendPer100 | None  # None: none that is significant
    alarms: tuple[int, ...]  # steps at which the chart passed its limit, the newest MAX_TOLD
    outliers: tuple[int, ...]  # steps, the newest MAX_TOLD

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def metric_drift(
    row: NumberRow, steps: IntArray, values: FloatArray, resumed_at: Sequence[int] = ()
) -> tuple[MetricDrift, tuple[Resumption, ...]]:
    """row: says the scale and the ideal. steps: [n] rising; values: [n], NaN, infinite or beyond
    LARGEST where there is none; resumed_at: steps with which a resumed attempt begins, rising. Also
    what each resume did, as far as the number has values before and after it."""
    scale = row.scale
    assert scale is not None, f"{row.name} has no scale"
    present = np.abs(values) <= LARGEST
    missing = int(values.size - np.count_nonzero(present))
    steps, values = steps[present], values[present]
    if not values.size:
        empty = MetricDrift("not_enough_steps", scale, 0, missing, None, 0, (), None, (), ())
        return empty, ()
    levels = _transformed(values, scale, row.ideal)
    log = scale == "log"
    noise = Noise(
        zero=LOG_OF_ZERO if log else 0.0,
        typical=TYPICAL_NOISE if log else None,
        rare=row.name in RARE,
    )
    starts = [0, *(int(i) for i in np.unique(np.searchsorted(steps, np.array(resumed_at))))]
    starts = [start for start in dict.fromkeys(starts) if start < values.size]
    series = _Series(scale, steps, values, levels)
    changes, outliers, line = list[Change](), list[int](), None
    resumptions, level_from = list[Resumption](), 0
    for start, end in zip(starts, [*starts[1:], values.size], strict=True):
        detected = level_changes(levels[start:end].tolist(), noise)
        part = changes_of(levels[start:end], detected.changes, noise.typical)
        found = [_moved(one, start) for one in part]
        outliers += [start + index for index in detected.outliers]
        if start:
            did = resumption(row.name, steps, values, levels, (level_from, start, end), noise)
            if did is not None:
                resumptions.append(did)
                found = [one for one in found if one.at > did.settled]
                level_from = start if did.lasts else level_from
        line = _told(series, start, end, found)
        if line is not None and line.first == start:
            found = []  # the steps of a staircase are not separate events
        changes += found
        level_from = max([level_from, *(one.at for one in found)])
    points = tuple(_change_point(series, change) for change in changes)
    state: State = "trending" if line else "shifted" if changes else "steady"
    if state == "steady" and values.size <= WARM_UP:
        state = "not_enough_steps"
    if state == "steady" and any(one.lasts for one in resumptions):
        state = "shifted"
    first_end = min([*(one.at for one in changes), *starts[1:], values.size])
    drift = MetricDrift(
        state=state,
        scale=scale,
        steps=values.size,
        missing=missing,
        baseline=_baseline(values[:first_end], levels[:first_end]),
        changes=len(changes),
        change_points=points[-MAX_TOLD:],
        trend=None if line is None else _per_100(line, steps, scale),
        alarms=tuple(point.found_at for point in points[-MAX_TOLD:]),
        outliers=tuple(int(steps[index]) for index in outliers[-MAX_TOLD:]),
    )
    return drift, tuple(resumptions)


@dataclass(frozen=True, slots=True)
class _Series:
    scale: ScaleKind
    steps: IntArray
    values: FloatArray  # in the number's unit
    levels: FloatArray  # on its scale


def _transformed(values: FloatArray, scale: ScaleKind, ideal: float) -> FloatArray:
    """[steps] → [steps] on a scale where steps of equal size mean equal things; log maps an exact
    ideal (bitwise-equal steps) to LOG_OF_ZERO.
    """
    distance = values - ideal
    if scale == "linear":
        return distance
    # ESS and correlation approach 1 from below; rounding may push them past it.
    distance = np.abs(distance)
    logs: FloatArray = np.log(np.maximum(distance, math.exp(LOG_OF_ZERO)))
    return logs


@dataclass(frozen=True, slots=True)
class _Line:
    trend: Trend
    first: int  # index in the series from which it holds


def _told(series: _Series, start: int, end: int, changes: Sequence[Change]) -> _Line | None:
    """One line through everything if it explains more than the changes, else the growth that goes
    on, else one since the last change."""
    steps, levels = series.steps[start:end], series.levels[start:end]
    whole = _significant(series, start, end)
    if whole is not None:
        inside = [_moved(one, -start) for one in changes]
        if not changes or _line_is_better(steps, levels, whole, inside):
            return _Line(whole, start)
    if not changes:
        return None
    last = changes[-1]
    if last.kind == "growth" and last.grows_until == end:
        at = series.steps[last.at : end].astype(np.float64)
        return _Line(trend(at, series.levels[last.at : end]), last.at)
    newest = _significant(series, last.at, end)
    return None if newest is None else _Line(newest, last.at)


def _moved(change: Change, by: int) -> Change:
    return Change(
        change.kind,
        *(change.at + by, change.low + by, change.high + by, change.found_at + by),
        *(change.start + by, change.grows_until + by, change.end + by),
    )


def _significant(series: _Series, start: int, end: int) -> Trend | None:
    """On the number's scale; a log scale bends a steady rise, whose bow would pass for memory, so
    that the number as it is may show it instead."""
    levels = series.levels[start:end]
    if levels.size < MIN_STEPS:
        return None
    at = series.steps[start:end].astype(np.float64)
    line = trend(at, levels)
    if line.p_value >= TREND_LEVEL and series.scale == "log":
        line = replace(line, p_value=trend(at, series.values[start:end]).p_value)
    if line.p_value >= TREND_LEVEL:
        return None
    noise = _spread(levels - line.slope * at - line.intercept)
    move = abs(line.slope) * float(at[-1] - at[0])
    return line if move > 0.0 and move >= MIN_MOVE * noise else None


def _line_is_better(
    steps: IntArray, levels: FloatArray, line: Trend, changes: Sequence[Change]
) -> bool:
    """Schwarz' criterion with Laplace noise, so that outliers do not decide."""
    from_line = levels - line.slope * steps - line.intercept
    # A line has two parameters, a level one; a change its step and the new level or slope.
    return laplace_criterion(from_line, 2) < laplace_criterion(
        structure_residuals(levels, changes), 1 + 2 * len(changes)
    )


def _change_point(series: _Series, change: Change) -> ChangePoint:
    rows = slice(change.start, change.at), slice(change.at, change.end)
    if change.kind == "growth":
        last = change.grows_until
        rows = rows[0], slice(max(change.at, last - LATEST), last)
    before, after = (float(np.median(series.values[part])) for part in rows)
    levels = [series.levels[part] for part in rows]
    move = abs(float(np.median(levels[1]) - np.median(levels[0])))
    noise = _spread(np.concatenate([part - np.median(part) for part in levels]))
    step, low, high, found_at = (
        int(series.steps[index])
        for index in (change.at, change.low, change.high, max(change.found_at, change.at))
    )
    return ChangePoint(
        *(step, low, high, change.kind, found_at, before, after),
        ratio=ratio_of(after, before),
        noise_units=move / noise if noise > 0.0 and math.isfinite(move / noise) else None,
    )


def _per_100(line: _Line, steps: IntArray, scale: ScaleKind) -> TrendPer100:
    trend = line.trend
    per_100 = [100.0 * slope for slope in (trend.slope, trend.low, trend.high)]
    if scale == "log":
        per_100 = [math.expm1(min(MAX_EXPONENT, slope)) for slope in per_100]
    slope, low, high = per_100
    return TrendPer100(slope, low, high, trend.p_value, int(steps[line.first]))


def _baseline(values: FloatArray, levels: FloatArray) -> Baseline:
    return Baseline(float(np.median(values)), _spread(levels), values.size)


def _spread(levels: FloatArray) -> float:
    return MAD_CONSISTENCY * float(np.median(np.abs(levels - np.median(levels))))
