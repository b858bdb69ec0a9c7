"""Drift of one metric over the steps of a run, and of all metrics together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from driftscope_probes.drift.cusum import WARM_UP, LevelChange, level_changes
from driftscope_probes.drift.event import Event
from driftscope_probes.drift.trend import MIN_STEPS, Trend, trend
from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.numbers import NUMBERS, ScaleKind

State = Literal["not_enough_steps", "steady", "shifted", "trending"]
#: Represents log 0. Far below any log of a measured difference, and finite: one bitwise-equal step
#: among others is then an outlier like any other.
LOG_OF_ZERO: Final = math.log(1e-300)
#: A trend is reported below this p-value if its line moves by MIN_MOVE stds of the noise.
TREND_LEVEL: Final = 1e-4
MIN_MOVE: Final = 1.0
#: This many changes in one direction are a staircase: a trend that is not a straight line.
STAIRCASE: Final = 3
#: Most changes, alarms and outliers reported, the newest of each: a series with more has no levels,
#: or heavy tails instead of outliers, and the size of an answer is limited.
MAX_TOLD: Final = 100
#: Beyond it squares overflow; no number of a comparison means anything there, and limits tell it.
LARGEST: Final = 1e150
#: Makes the median absolute deviation consistent for Gaussian noise.
MAD_CONSISTENCY: Final = 1.4826
#: exp() of more overflows; larger factors are reported as e^700.
MAX_EXPONENT: Final = 700.0


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Medians of the steps between this change and the ones around it, in the number's unit."""

    step: int  # first one at the new level
    found_at: int  # step at which it was clear
    before: float
    after: float
    ratio: float | None  # after / before; None where before is 0


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
    scale: ScaleKind, ideal: float, steps: IntArray, values: FloatArray
) -> MetricDrift:
    """steps: [n] rising; values: [n], NaN, infinite or beyond LARGEST where there is none."""
    present = np.abs(values) <= LARGEST
    missing = int(values.size - np.count_nonzero(present))
    steps, values = steps[present], values[present]
    if not values.size:
        return MetricDrift("not_enough_steps", scale, 0, missing, None, 0, (), None, (), ())
    levels = _transformed(values, scale, ideal)
    detected = level_changes(levels.tolist(), LOG_OF_ZERO if scale == "log" else 0.0)
    changes = detected.changes
    line = _told(steps, levels, changes)
    state: State = "trending" if line else "shifted" if changes else "steady"
    if state == "steady" and values.size <= WARM_UP:
        state = "not_enough_steps"
    # The steps of a staircase are not separate events.
    staircase = line is not None and line.first == 0
    first_end = changes[0].at if changes else values.size
    return MetricDrift(
        state=state,
        scale=scale,
        steps=values.size,
        missing=missing,
        baseline=_baseline(values[:first_end], levels[:first_end]),
        changes=0 if staircase else len(changes),
        change_points=() if staircase else _change_points(steps, values, changes)[-MAX_TOLD:],
        trend=None if line is None else _per_100(line, steps, scale),
        alarms=tuple(int(steps[change.found_at]) for change in changes[-MAX_TOLD:]),
        outliers=tuple(int(steps[index]) for index in detected.outliers[-MAX_TOLD:]),
    )


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


def _told(steps: IntArray, levels: FloatArray, changes: tuple[LevelChange, ...]) -> _Line | None:
    """One line through everything if it explains more than the changes, else one since the last."""
    whole = _significant(steps, levels)
    if whole is not None and (
        not changes or _staircase(levels, changes) or _line_is_better(steps, levels, whole, changes)
    ):
        return _Line(whole, 0)
    if not changes:
        return None
    first = changes[-1].at
    newest = _significant(steps[first:], levels[first:])
    return None if newest is None else _Line(newest, first)


def _significant(steps: IntArray, levels: FloatArray) -> Trend | None:
    if levels.size < MIN_STEPS:
        return None
    at = steps.astype(np.float64)
    line = trend(at, levels)
    if line.p_value >= TREND_LEVEL:
        return None
    noise = _spread(levels - line.slope * at - line.intercept)
    move = abs(line.slope) * float(at[-1] - at[0])
    return line if move > 0.0 and move >= MIN_MOVE * noise else None


def _staircase(levels: FloatArray, changes: tuple[LevelChange, ...]) -> bool:
    medians = [float(np.median(part)) for part in np.split(levels, [c.at for c in changes])]
    moves = np.sign(np.diff(medians))
    return len(changes) >= STAIRCASE and bool(np.all(moves == moves[0]))


def _line_is_better(
    steps: IntArray, levels: FloatArray, line: Trend, changes: tuple[LevelChange, ...]
) -> bool:
    """Schwarz' criterion with Laplace noise, so that outliers do not decide."""
    from_line = np.abs(levels - line.slope * steps - line.intercept)
    parts = np.split(levels, [change.at for change in changes])
    from_steps = np.concatenate([np.abs(part - np.median(part)) for part in parts])
    # A line has two parameters, a level one, a change its step and the new level.
    return _criterion(from_line, 2) < _criterion(from_steps, 1 + 2 * len(changes))


def _criterion(deviations: FloatArray, parameters: int) -> float:
    mean = float(deviations.mean())
    if mean == 0.0:
        return -math.inf
    return 2.0 * deviations.size * math.log(mean) + parameters * math.log(deviations.size)


def _change_points(
    steps: IntArray, values: FloatArray, changes: tuple[LevelChange, ...]
) -> tuple[ChangePoint, ...]:
    medians = [float(np.median(part)) for part in np.split(values, [c.at for c in changes])]
    return tuple(
        ChangePoint(
            step=int(steps[change.at]),
            found_at=int(steps[change.found_at]),
            before=before,
            after=after,
            ratio=_ratio(after, before),
        )
        for change, before, after in zip(changes, medians[:-1], medians[1:], strict=True)
    )


def _ratio(after: float, before: float) -> float | None:
    ratio = after / before if before else math.inf
    return ratio if math.isfinite(ratio) else None


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


#: Names in Comparison.to_dict(), in the order in which they are shown.
SERIES: Final = (
    *("abs_diff_mean", "abs_diff_p99", "abs_diff_max", "prob_abs_diff_mean", "prob_pearson"),
    *("kl_k1", "kl_k3", "kl_k3_entropy_ratio", "token_mult_prob_error", "ess_ratio_token"),
    *("abs_diff_share_above_ln2", "confident_disagreement_share", "bitwise_equal_fraction"),
    *("seq_logratio_slope_per_1000_tokens", "rollout_log_ppl", "nonfinite_tokens"),
    # Only where behavior_version and weights_version were pushed.
    *("lag_mean", "stale_token_share", "lag0_abs_diff_mean", "staleness_share"),
)


@dataclass(frozen=True, slots=True)
class StepValues:
    """Numbers of Comparison.to_dict() at one step; None and missing names have no value."""

    step: int
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Drift:
    steps: int
    metrics: Mapping[str, MetricDrift]  # the names in SERIES that have a value at any step
    events: tuple[Event, ...] = ()  # rising by step, one per point in time
    resumed_at: tuple[int, ...] = ()  # first steps of resumed attempts

    @property
    def state(self) -> State:
        """State of the run: trending takes precedence over shifted, shifted over steady."""
        states = {metric.state for metric in self.metrics.values()}
        order: tuple[State, ...] = ("trending", "shifted", "steady")
        return next((state for state in order if state in states), "not_enough_steps")

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "steps": self.steps,
            "events": [event.to_dict() for event in self.events],
            "resumed_at": list(self.resumed_at),
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
        }


def drift_of(points: Sequence[StepValues], *, resumed_at: Sequence[int] = ()) -> Drift:
    """points: one per step, rising by step (gaps are allowed). Names beyond SERIES are not read.
    resumed_at: step numbers, each the first one of a resumed attempt in this series, in any order;
    those at or before the first point and beyond the last one have no before and after: not read.
    """
    steps = np.array([point.step for point in points], dtype=np.int64)
    assert bool(np.all(np.diff(steps) > 0)), "steps rise and none comes twice"
    metrics = {}
    for name in SERIES:
        row = NUMBERS[name]
        assert row.scale is not None, f"{name} has no scale"
        values = [point.values.get(name) for point in points]
        if any(value is not None for value in values):
            # None becomes NaN.
            levels = np.array(values, dtype=np.float64)
            metrics[name] = metric_drift(row.scale, row.ideal, steps, levels)
    inside = (step for step in sorted(set(resumed_at)) if steps.size and steps[0] < step <= steps[-1])
    return Drift(len(points), metrics, resumed_at=tuple(inside))
