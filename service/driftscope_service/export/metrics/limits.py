"""Limits of a run as metrics: the limit for its dtypes, how much of it is used, whether it is
crossed.

In: a comparison, the coarser dtype of its sides and what was crossed at ingest. Out: samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.mismatch.limits import LIMITS, Direction, Precision

#: Where a perfect pair of engines stands; 0 for every other number.
_IDEALS: Final[Mapping[str, float]] = {
    "token_mult_prob_error": 1.0,
    "prob_pearson": 1.0,
    "ess_ratio_token": 1.0,
    "ratio_mean": 1.0,
}


@dataclass(frozen=True, slots=True)
class LimitState:
    metric: str
    direction: Direction
    limit: float
    #: (value − ideal) / (limit − ideal): 1 is at the limit, in any unit and for any dtype.
    #: None: no value, or the ideal itself is the limit.
    used: float | None
    over: bool


def limit_states(
    comparison: Mapping[str, Any],
    precision: Precision,
    overflowed: Collection[str],  # names of metrics that crossed without a finite value
) -> Iterator[LimitState]:
    for limit in LIMITS:
        bound = limit.values[precision]
        value = comparison.get(limit.metric)
        if limit.metric in overflowed:
            value = math.inf if limit.direction == "above" else -math.inf
        over = value is not None and (
            value > bound if limit.direction == "above" else value < bound
        )
        ideal = _IDEALS.get(limit.metric, 0.0)
        used = None if value is None or bound == ideal else (value - ideal) / (bound - ideal)
        yield LimitState(limit.metric, limit.direction, bound, used, over)
