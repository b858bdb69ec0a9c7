"""Slow change: Theil–Sen slope with Mann–Kendall test, corrected for autocorrelation.

In: step numbers and one series. Out: Trend with interval and p-value.

Theil (1950), Sen (JASA 63, 1968), Mann (Econometrica 13, 1945), Kendall (1975); correction of the
variance: Yue and Wang (Water Resources Management 18, 2004) with a memory of lag 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.mismatch.number import FloatArray

#: Fewer cannot tell a trend from autocorrelation.
MIN_STEPS: Final = 40
#: All pairs of n steps are n²/2. Longer series are cut into at most this many blocks of successive
#: steps, each replaced by its medians: 20,000 pairs, and less autocorrelation between blocks.
MAX_BLOCKS: Final = 200
MAX_AUTOCORRELATION: Final = 0.9
#: Two-sided normal quantile of a 95 % interval.
Z_95: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Trend:
    """Slopes per step; the line passes through (step, intercept + slope · step)."""

    slope: float
    low: float
    high: float
    intercept: float
    p_value: float  # two-sided, against no trend at all


def theil_sen(steps: FloatArray, values: FloatArray) -> tuple[float, float]:
    """steps: [n] rising, values: [n] finite, n ≥ 2. Slope and intercept of the robust line."""
    at, level = _blocks(steps), _blocks(values)
    left, right = np.triu_indices(at.size, 1)
    slope = float(np.median((level[right] - level[left]) / (at[right] - at[left])))
    return slope, float(np.median(level - slope * at))


def trend(steps: FloatArray, values: FloatArray) -> Trend:
    """steps: [n] rising, values: [n] finite, n ≥ MIN_STEPS."""
    at, level = _blocks(steps), _blocks(values)
    left, right = np.triu_indices(at.size, 1)
    rises = level[right] - level[left]
    slopes = np.sort(rises / (at[right] - at[left]))
    slope = float(np.median(slopes))
    intercept = float(np.median(level - slope * at))
    memory = _autocorrelation(level - slope * at - intercept)
    deviation = math.sqrt(_kendall_variance(level) * (1.0 + memory) / (1.0 - memory))
    return Trend(
        slope,
        *_interval(slopes, deviation),
        intercept,
        _p_value(float(np.sign(rises).sum()), deviation),
    )


def _blocks(values: FloatArray) -> FloatArray:
    """[n] → [≤ MAX_BLOCKS] medians; steps that do not fill a block are left out at the start."""
    size = -(-values.size // MAX_BLOCKS)
    if size == 1:
        return values
    whole = values[values.size % size :].reshape(-1, size)
    medians: FloatArray = np.median(whole, axis=1)
    return medians


def _autocorrelation(residuals: FloatArray) -> float:
    centred = residuals - residuals.mean()
    squares = float(np.dot(centred, centred))
    if squares == 0.0:
        return 0.0
    estimate = float(np.dot(centred[1:], centred[:-1])) / squares
    # One standard error more: too low an estimate would turn noise into trends.
    return min(MAX_AUTOCORRELATION, max(0.0, estimate + 1.0 / math.sqrt(residuals.size)))


def _kendall_variance(values: FloatArray) -> float:
    """Variance of the sum of signs over all pairs, with ties."""
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    count = float(values.size)
    whole = count * (count - 1) * (2 * count + 5)
    return (whole - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18.0


def _p_value(signs: float, deviation: float) -> float:
    if deviation == 0.0:
        return 1.0
    return math.erfc(max(0.0, abs(signs) - 1.0) / deviation / math.sqrt(2.0))


def _interval(slopes: FloatArray, deviation: float) -> tuple[float, float]:
    """Sen's 95 % interval from the order of all pairs' slopes."""
    aside = (slopes.size - Z_95 * deviation) / 2.0
    low = max(0, math.floor(aside))
    return float(slopes[low]), float(slopes[slopes.size - 1 - low])
