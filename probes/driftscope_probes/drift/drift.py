"""A run's summary numbers over its steps → Drift: what shifted, is trending, or is steady.

In: StepValues per step. Out: Drift. Linear in the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from driftscope_probes.drift.metric_drift import MetricDrift, State, metric_drift
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
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
        }


def drift_of(points: Sequence[StepValues]) -> Drift:
    """points: one per step, rising by step (gaps are allowed). Names beyond SERIES are not read."""
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
    return Drift(len(points), metrics)
