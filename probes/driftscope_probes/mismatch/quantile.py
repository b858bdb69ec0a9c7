"""A quantile between two order statistics, as numpy.quantile and torch.quantile have it by default.

In: values by rank. Out: one number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def linear_quantile(values: Mapping[int, float], share: float, count: int) -> float:
    """Between order statistics, rounded as numpy rounds it."""
    low, high, weight = quantile_ranks(share, count)
    below, above = values[low], values[high]
    step = above - below
    return above - step * (1.0 - weight) if weight >= 0.5 else below + step * weight


def quantile_ranks(share: float, count: int) -> tuple[int, int, float]:
    """The two ranks a quantile lies between, and the weight of the upper one."""
    place = share * (count - 1)
    low = math.floor(place)
    return low, min(low + 1, count - 1), place - low
