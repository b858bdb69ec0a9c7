"""An evenly spread sample of places: the same places for the same sizes, without a seed.

In: how many there are and how many may be kept. Out: rising places, without repetition.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.arrays import IntArray

# Multiples of the golden ratio modulo 1 spread evenly for every length and, unlike a fixed
# stride, do not fall into step with sequences of equal length.
GOLDEN_FRACTION = 0.6180339887498949


def even_sample(size: int, limit: int) -> IntArray:
    """At most `limit` of the places 0 … size − 1; all of them where they fit."""
    if size <= limit:
        return np.arange(size)
    places = (np.arange(limit) * GOLDEN_FRACTION % 1.0 * size).astype(np.int64)
    return np.unique(places)
