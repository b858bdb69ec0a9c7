"""A run's summary numbers over its steps → Drift: what shifted, what is trending, what is steady.

In: StepValues per step. Out: Drift. Linear in the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.drift.metric_drift import MetricDrift, State, metric_drift
from driftscope_probes.drift.series import SCALES


@dataclass(frozen=True, slots=True)
class StepValues:
    """Numbers of Comparison.to_dict() at one step; None and missing names have no value."""

    step: int
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Drift:
    steps: int
    metrics: Mapping[str, MetricDrift]  # of SERIES, those with a value at any step

    @property
    def state(self) -> State:
        """Of the run: trending before shifted before steady."""
        states = {metric.state for metric in self.metrics.values()}
        order: tuple[State, ...] = ("trending", "shifted", "steady")
        return next((state for state in order if state in states), "not_enough_steps")

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "steps": self.steps,
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
        }


def drift_of(points: Sequence[StepValues]) -> Drift:
    """points: one per step, rising by step (gaps are allowed). Names beyond SERIES are not read."""
    steps = np.array([point.step for point in points], dtype=np.int64)
    assert bool(np.all(np.diff(steps) > 0)), "steps rise and none comes twice"
    metrics = {}
    for name, scale in SCALES.items():
        given = [point.values.get(name) for point in points]
        if all(value is None for value in given):
            continue
        # None becomes NaN.
        metrics[name] = metric_drift(scale, steps, np.array(given, dtype=np.float64))
    return Drift(len(points), metrics)
