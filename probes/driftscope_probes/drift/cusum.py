"""A CUSUM chart of one number over a run's steps, in units of a robust std.

Two-sided and self-starting (Hawkins, Journal of Quality Technology 19, 1987), winsorised (1993).
It tells soon that a level changed; split.py looks at the steps that it learns from, dating.py says
when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.mismatch.number import FloatArray

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


#: Steps that a level is learned from before the chart reports anything.
WARM_UP: Final = 20
#: Reference value: best for shifts of 2 spreads; a doubling of a mean over many tokens is more.
REFERENCE: Final = 1.0
#: Limit of the sum. Siegmund's formula (Sequential Analysis, 1985) gives one false alarm in more
#: than 10 million steps of white Gaussian noise whose level and spread are known. They are learned
#: here, and noise has memory and tails: bench/drift_rates.py prints what is left, one in a million
#: to one in ten thousand.
DECISION: Final = 8.0
#: Most that one step adds before REFERENCE is taken off: 3 of them are needed to pass DECISION.
WINSOR: Final = 4.0
#: So many values in a row this many stds off, on one side, are a change whatever the sum says:
#: noise with memory goes that far, but not for long. The limit grows with the memory, and the
#: values must not fade as after one huge shock: none is below half of another.
ROW: Final = 3
ROW_OFF: Final = 3.5
ROW_MEMORY: Final = 0.25
FADED: Final = 0.5
#: Longest memory that is corrected for; beyond it a series wanders, and its level does change.
MAX_AUTOCORRELATION: Final = 0.9
#: Delay, in steps, before a step is learned from: a shift would otherwise hide itself by raising
#: the std and the autocorrelation that it is measured with.
GAP: Final = 20
#: The square of a smaller one is 0.
SMALLEST_SPREAD: Final = 1e-150


@dataclass(frozen=True, slots=True)
class Alarm:
    at: int  # index of the value at which the sum passed its limit
    since: int  # first index after the last zero of the sum


def chart(values: Sequence[float], start: int, outliers: set[int]) -> Alarm | None:
    """The first alarm of a chart that learns from values[start : start + WARM_UP], of which there
    are as many. Indices of single values far from the level of their time join `outliers`."""
    level = _Level(values[start : start + WARM_UP])
    rise = fall = 0.0
    rise_from = fall_from = start + WARM_UP
    row: list[float] = []
    for index in range(start + WARM_UP, len(values)):
        raw, shrunk = level.score(values[index])
        score = raw * shrunk
        if abs(raw) > ROW_OFF and abs(raw) * shrunk**ROW_MEMORY > ROW_OFF:
            row.append(raw)
        else:
            row.clear()
        if index - GAP >= start + WARM_UP:
            level.take_in(values[index - GAP])
        if abs(score) > WINSOR:
            outliers.add(index)
            score = math.copysign(WINSOR, score)
        rise += score - REFERENCE
        fall -= score + REFERENCE
        if rise <= 0.0:
            rise, rise_from = 0.0, index + 1
        if fall <= 0.0:
            fall, fall_from = 0.0, index + 1
        if max(rise, fall) > DECISION:
            return Alarm(index, rise_from if rise > DECISION else fall_from)
        if len(row) >= ROW and _stays(row[-ROW:]):
            return Alarm(index, index - ROW + 1)
    return None


def _stays(row: Sequence[float]) -> bool:
    sizes = [abs(one) for one in row]
    one_side = min(row) > 0.0 or max(row) < 0.0
    return one_side and min(sizes) > FADED * max(sizes)


class _Level:
    """Mean, spread and lag-1 autocorrelation of the steps so far, each winsorised."""

    __slots__ = ("_count", "_last", "_mean", "_products", "_squares", "_sum_of_squares")

    def __init__(self, first: Sequence[float]) -> None:
        count = len(first)
        self._count = count
        self._mean = float(np.median(first))
        spread = max(robust_spread(np.asarray(first)), SMALLEST_SPREAD)
        self._sum_of_squares = spread * spread * (count - 1)
        scores = np.clip((np.asarray(first) - self._mean) / spread, -WINSOR, WINSOR)
        # Differences as small as denormal numbers have squares of 0.
        self._squares = max(float(np.dot(scores, scores)), SMALLEST_SPREAD)
        self._products = float(np.dot(scores[1:], scores[:-1]))
        self._last = float(scores[-1])

    def score(self, value: float) -> tuple[float, float]:
        """Standard normal if `value` comes from the level so far, and the factor by which it counts
        in a sum: less with memory."""
        count = self._count
        deviation = (value - self._mean) / self._spread()
        score = normal_score(deviation / math.sqrt(1.0 + 1.0 / count), count - 1)
        memory = self._autocorrelation()
        # The sum of a series with memory grows like that of noise of this larger spread.
        return score, math.sqrt((1.0 - memory) / (1.0 + memory))

    def _autocorrelation(self) -> float:
        """One standard error above its estimate: too low costs false alarms, too high delay."""
        estimate = self._products / self._squares + 1.0 / math.sqrt(self._count)
        return min(MAX_AUTOCORRELATION, max(0.0, estimate))

    def _spread(self) -> float:
        return math.sqrt(self._sum_of_squares / (self._count - 1))

    def take_in(self, value: float) -> None:
        spread = self._spread()
        deviation = min(WINSOR, max(-WINSOR, (value - self._mean) / spread))
        self._count += 1
        move = deviation * spread / self._count
        self._mean += move
        self._sum_of_squares += deviation * spread * (deviation * spread - move)
        self._squares += deviation * deviation
        self._products += deviation * self._last
        self._last = deviation


def normal_score(t: float, freedom: float) -> float:
    """Student's t → normal score: Wallace's approximation (Annals of Mathematical Statistics 30,
    1959), within 0.02 of the exact one from 19 degrees of freedom on up to 4."""
    factor = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)
    return math.copysign(factor * math.sqrt(freedom * math.log1p(t * t / freedom)), t)
