"""Between which two numbers a quantile of |Δ| lies, from a histogram alone.

In: a Histogram. Out: the edges of the bucket that holds the quantile.
"""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.histogram import EDGES, Histogram
from driftscope_probes.mismatch.number import NO_TOKENS, Undefined


def quantile_bracket(
    histogram: Histogram, share: float, largest: float
) -> tuple[float, float] | Undefined:
    """Holds the quantile with linear interpolation, as abs_diff_p… has it.

    largest: the largest |Δ|, nats. It closes the open bucket at the top.
    """
    counts = [histogram.zero, histogram.below, *histogram.counts.tolist(), histogram.above]
    total = sum(counts)
    if not total:
        return NO_TOKENS
    lower = (0.0, 0.0, *EDGES)
    upper = (0.0, *EDGES, math.inf)
    reached = np.cumsum(counts)
    place = share * (total - 1)
    first = int(np.searchsorted(reached, math.floor(place), side="right"))
    last = int(np.searchsorted(reached, math.ceil(place), side="right"))
    return lower[first], min(upper[last], largest)
