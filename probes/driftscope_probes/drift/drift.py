"""Drift of a run: that of each of its numbers, and the events that they tell together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from driftscope_probes.drift.events import Event, NumberMoved, events_of, ratio_of
from driftscope_probes.drift.metric import (
    LARGEST,
    LATEST,
    MAX_TOLD,
    MetricDrift,
    State,
    metric_drift,
)
from driftscope_probes.numbers import NUMBERS

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
    events: tuple[Event, ...] = ()  # rising by step, one per point in time; the newest MAX_TOLD
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
    inside = tuple(
        step for step in sorted(set(resumed_at)) if steps.size and steps[0] < step <= steps[-1]
    )
    metrics, at_resumes = {}, list[NumberMoved]()
    for name in SERIES:
        values = [point.values.get(name) for point in points]
        if any(value is not None for value in values):
            # None becomes NaN.
            levels = np.array(values, dtype=np.float64)
            metrics[name], did = metric_drift(NUMBERS[name], steps, levels, inside)
            at_resumes += [one.moved for one in did if one.moved is not None]
    moved = [one for name, metric in metrics.items() for one in _moves(name, metric, points)]
    events = events_of(moved, at_resumes, inside)
    return Drift(len(points), metrics, events[-MAX_TOLD:], inside)


def _moves(name: str, metric: MetricDrift, points: Sequence[StepValues]) -> list[NumberMoved]:
    """The changes of one number, and its line where that began with the first step."""
    found = [
        NumberMoved(
            *(name, one.kind, one.step, one.low, one.high, one.found_at),
            *(one.before, one.after, one.ratio, one.noise_units),
        )
        for one in metric.change_points
    ]
    line = metric.trend
    if line is None or any(one.step == line.from_step for one in metric.change_points):
        return found
    values = [
        value
        for point in points
        if point.step >= line.from_step
        and (value := point.values.get(name)) is not None
        and abs(value) <= LARGEST
    ]
    before, after = float(np.median(values[:LATEST])), float(np.median(values[-LATEST:]))
    first = line.from_step
    end = points[-1].step
    return [
        *found,
        NumberMoved(
            name, "growth", first, first, first, end, before, after, ratio_of(after, before), None
        ),
    ]
