"""Two levels in one stretch of values, looked for after the fact: where, and how surely.

The likelihood ratio for one change of mean at an unknown place (Hinkley, Biometrika 57, 1970;
critical values: Siegmund, Sequential Analysis, 1985), on values whose lonely spikes are cut and
with the variance of a mean of AR(1) noise. It needs no learned level: the first steps are looked at
too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.drift.cusum import MAX_AUTOCORRELATION, normal_score
from driftscope_probes.mismatch.number import FloatArray

#: Values at the new level before it is told from an outlier.
AFTER: Final = 3
#: So few values before a change may be outliers of heavy-tailed noise: one has to lie this many
#: times further off than any value of the other level, each of two further than any.
FEW: Final = 2
FURTHER: Final = 1.5
#: A value further than this from the median of itself and its neighbours is cut, in stds.
SPIKE: Final = 3.0
#: Makes the median absolute difference of neighbours consistent for white Gaussian noise.
DIFFERENCE_CONSISTENCY: Final = 1.4826 / math.sqrt(2.0)
#: In more values than LATE a change is looked for LATE_MARGIN values from either end only: nearer
#: to the start a shorter look has seen it, nearer to the end the chart does.
LATE: Final = 60
LATE_MARGIN: Final = 10
#: Makes the median absolute deviation consistent for Gaussian noise.
MAD_CONSISTENCY: Final = 1.4826
#: Stds from its level at which a value is cut there.
WINSOR: Final = 2.5
#: So many values count as known beforehand, of noise with the std `typical`: the std of three or
#: four values alone says next to nothing (moderated variance: Smyth, SAGMB 3, 2004).
KNOWN_BEFORE: Final = 6.0


@dataclass(frozen=True, slots=True)
class Split:
    at: int  # first index at the second level
    score: float  # normal score of the difference; infinite without any noise


def best_split(
    values: FloatArray, typical: float | None, *, near_ends: bool = False
) -> Split | None:
    """values: [n] finite; typical: std that noise of this kind usually has, None where nothing is
    known; near_ends: look there among many values too, where it is known that something changed.
    None where fewer than AFTER + 1 values are there, or all are equal."""
    count = values.size
    if count < AFTER + 1:
        return None
    centred = values - np.median(values)
    largest = float(np.max(np.abs(centred)))
    if largest == 0.0:
        return None
    scaled = centred / largest
    cleaned = without_spikes(scaled)
    aside = LATE_MARGIN if count > LATE and not near_ends else 0
    before = np.arange(max(1, aside), count - max(AFTER, aside) + 1)
    sums = np.cumsum(cleaned)
    means = sums[before - 1] / before
    means_after = (sums[-1] - sums[before - 1]) / (count - before)
    gains = (means_after - means) ** 2 * before * (count - before)
    best = int(np.argmax(gains))
    at = int(before[best])
    if _an_outlier(scaled, at):
        return Split(at, 0.0)
    return _scored(cleaned, at, None if typical is None else typical / largest)


def best_window(values: FloatArray, typical: float | None) -> Split | None:
    """values: [n] finite, n ≤ LATE. A stretch of at least AFTER values that differs from those on
    both of its sides (Olshen et al., Biostatistics 5, 2004), which no single split shows: where it
    begins. None where there are too few."""
    count = values.size
    if count < 2 * AFTER + 2:
        return None
    centred = values - np.median(values)
    largest = float(np.max(np.abs(centred)))
    if largest == 0.0:
        return None
    cleaned = without_spikes(centred / largest)
    sums = np.concatenate([[0.0], np.cumsum(cleaned)])
    first, end = np.triu_indices(count, AFTER)  # end is exclusive
    # One value before it is not a level, and fewer than AFTER behind it may be outliers.
    between = (first > 1) & (end <= count - AFTER)
    first, end = first[between], end[between]
    inside = end - first
    of_inside = sums[end] - sums[first]
    difference = of_inside / inside - (sums[-1] - of_inside) / (count - inside)
    best = int(np.argmax(difference**2 * inside * (count - inside)))
    begin, width = int(first[best]), int(inside[best])
    # Put first, the stretch and the rest are two levels as any.
    rolled = np.roll(cleaned, -begin)
    scaled = None if typical is None else typical / largest
    return Split(begin, _scored(rolled, width, scaled).score)


def score_at(values: FloatArray, at: int, typical: float | None) -> float:
    """The normal score of a change at index `at`, 0 < at < n, known to be there or not at all."""
    centred = values - np.median(values)
    largest = float(np.max(np.abs(centred)))
    if largest == 0.0:
        return 0.0
    scaled = centred / largest
    if _an_outlier(scaled, at):
        return 0.0
    known = None if typical is None else typical / largest
    return _scored(without_spikes(scaled), at, known).score


def _an_outlier(values: FloatArray, at: int) -> bool:
    """Whether the few values before index `at` may be outliers of the noise of those after it."""
    if at > FEW:
        return False
    first, second = values[:at], values[at:LATE]
    center = float(np.median(second))
    further = FURTHER if at == 1 else 1.0
    return bool(np.min(np.abs(first - center)) < further * np.max(np.abs(second - center)))


def _scored(values: FloatArray, at: int, typical: float | None) -> Split:
    count = values.size
    if count > LATE:
        values = _winsorised(values, at)
    first, second = values[:at], values[at:]
    difference = float(second.mean() - first.mean())
    if difference == 0.0:
        return Split(at, 0.0)
    residuals = np.concatenate([first - first.mean(), second - second.mean()])
    squares = float(np.dot(residuals, residuals))
    if squares <= np.finfo(float).eps * difference * difference:
        # Without noise a level has to have been held; one value is not a level.
        return Split(at, math.inf if at > 1 else 0.0)
    memory = min(
        MAX_AUTOCORRELATION,
        max(0.0, float(np.dot(residuals[1:], residuals[:-1])) / squares + 1.0 / math.sqrt(count)),
    )
    longer = (1.0 + memory) / (1.0 - memory)
    # A mean of few values with memory varies like one of them, not more.
    variance = min(1.0, longer / at) + min(1.0, longer / (count - at))
    freedom = max(1.0, float(count - 2))
    if typical is not None:
        squares += KNOWN_BEFORE * typical * typical
        freedom += KNOWN_BEFORE
    t = abs(difference) / math.sqrt(squares / freedom * variance)
    return Split(at, normal_score(t, freedom))


def _winsorised(values: FloatArray, at: int) -> FloatArray:
    """Heavy tails make the mean of hundreds of values uncertain, and its std more so."""
    levels = np.where(np.arange(values.size) < at, np.median(values[:at]), np.median(values[at:]))
    spread = MAD_CONSISTENCY * float(np.median(np.abs(values - levels)))
    cut: FloatArray = np.clip(values, levels - WINSOR * spread, levels + WINSOR * spread)
    return cut if spread > 0.0 else values


def without_spikes(values: FloatArray) -> FloatArray:
    """[n] → [n]: each at most SPIKE stds of the noise from the median of itself and its two
    neighbours. A level held for two values is not a spike; the first and last value stay."""
    if values.size < 4:
        return values
    spread = DIFFERENCE_CONSISTENCY * float(np.median(np.abs(np.diff(values))))
    left, middle, right = values[:-2], values[1:-1], values[2:]
    near = np.maximum(np.minimum(left, middle), np.minimum(np.maximum(left, middle), right))
    cleaned = values.copy()
    cleaned[1:-1] = np.clip(middle, near - SPIKE * spread, near + SPIKE * spread)
    return cleaned
