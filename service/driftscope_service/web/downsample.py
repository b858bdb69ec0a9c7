"""A long series as few buckets: per bucket the lowest, mean and highest value, so that no spike is
lost. In: points in order. Out: at most the number of buckets that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from driftscope_service.store.series_query import MetricPoint


@dataclass(frozen=True, slots=True)
class Bucket:
    """Of neighbouring steps; values None where none of them has one."""

    first_step: int
    last_step: int
    low: float | None
    mean: float | None
    high: float | None
    steps: int
    crossed: int  # steps that crossed a limit of this metric


def downsample(points: Sequence[MetricPoint], buckets: int) -> list[Bucket]:
    """Buckets of equally many steps; the last may have fewer."""
    size = max(1, math.ceil(len(points) / buckets))
    return [_bucket(points[start : start + size]) for start in range(0, len(points), size)]


def _bucket(points: Sequence[MetricPoint]) -> Bucket:
    values = [point.value for point in points if point.value is not None]
    return Bucket(
        first_step=points[0].step,
        last_step=points[-1].step,
        low=min(values, default=None),
        # fsum: the mean of equal values is that value.
        mean=math.fsum(values) / len(values) if values else None,
        high=max(values, default=None),
        steps=len(points),
        crossed=sum(point.crossed for point in points),
    )
