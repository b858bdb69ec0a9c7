"""Spread of a few values that outliers do not move: Rousseeuw and Croux' Qn.

In: values, not all equal. Out: what the standard deviation would be if they were Gaussian.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray

#: Rousseeuw and Croux, Alternatives to the median absolute deviation (JASA 88, 1993): makes Qn
#: consistent for Gaussian values. Half of the values may be wrong, as with the MAD, but it uses
#: 82 % of the information instead of 37 %, which counts with twenty values.
QN_CONSISTENCY: Final = 2.2219
#: Their correction for few values, n / (n + 1.4) for odd and n / (n + 3.8) for even n above 9.
QN_ODD, QN_EVEN = 1.4, 3.8


def robust_spread(values: FloatArray) -> float:
    """values: [n], n ≥ 10, in n² time. Where more than half of the values are equal it is the
    standard deviation."""
    count = values.size
    left, right = np.triu_indices(count, 1)
    half = count // 2 + 1
    nearest = math.comb(half, 2) - 1
    quantile = float(np.partition(np.abs(values[left] - values[right]), nearest)[nearest])
    correction = count / (count + (QN_ODD if count % 2 else QN_EVEN))
    spread = QN_CONSISTENCY * correction * quantile
    if spread > 0.0:
        return spread
    return float(values.std(ddof=1))
