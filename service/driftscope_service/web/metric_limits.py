"""The published limits on one metric, for the dtypes of a run."""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.limits import LIMITS, Direction, pair_precision


@dataclass(frozen=True, slots=True)
class MetricLimit:
    direction: Direction
    value: float
    source: str


def metric_limits(
    metric: str, rollout_dtype: str | None, trainer_dtype: str | None
) -> list[MetricLimit]:
    precision = pair_precision(rollout_dtype, trainer_dtype)
    return [
        MetricLimit(limit.direction, limit.values[precision], limit.source)
        for limit in LIMITS
        if limit.metric == metric
    ]
