"""Level changes of one number over a run's steps: a CUSUM chart in units of a robust std."""

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


#: Steps that a level is learned from before anything is reported; a shift among them is missed.
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
#: Longest memory that is corrected for; beyond it a series wanders, and its level does change.
MAX_AUTOCORRELATION: Final = 0.9
#: Delay, in steps, before a step is learned from: a shift would otherwise hide itself by raising
#: the std and the autocorrelation that it is measured with.
GAP: Final = 20
#: The square of a smaller one is 0.
SMALLEST_SPREAD: Final = 1e-150
#: Exact zeros (bitwise-equal steps) after which the first other value is a change.
ZEROS: Final = 5
#: Steps that have to differ from any other constant: the fewest that the chart needs.
OFF_CONSTANT: Final = 3


@dataclass(frozen=True, slots=True)
class LevelChange:
    """Indices in the series: the level changes at `at`, which was clear at `found_at`."""

    at: int
    found_at: int


@dataclass(frozen=True, slots=True)
class LevelChanges:
    changes: tuple[LevelChange, ...]
    outliers: tuple[int, ...]  # single values far from the level of their time


def level_changes(values: Sequence[float], zero: float) -> LevelChanges:
    """values: finite; `zero` is the value that represents an exact zero."""
    changes: list[LevelChange] = []
    outliers: set[int] = set()
    start = 0
    while (found := _first_change(values, start, zero, outliers)) is not None:
        outliers.difference_update(range(found.at, found.found_at + 1))
        changes.append(found)
        start = found.at
    return LevelChanges(tuple(changes), tuple(sorted(outliers)))


def _first_change(
    values: Sequence[float], start: int, zero: float, outliers: set[int]
) -> LevelChange | None:
    same = _length_of_constant(values, start)
    if start + same == len(values):
        return None
    if values[start] == zero and same >= ZEROS:
        return LevelChange(start + same, start + same)
    if same >= WARM_UP:
        return _change_from_constant(values, start, outliers)
    if len(values) - start <= WARM_UP:
        return None
    return _chart(values, start, outliers)


def _length_of_constant(values: Sequence[float], start: int) -> int:
    end = start
    while end < len(values) and values[end] == values[start]:
        end += 1
    return end - start


def _change_from_constant(
    values: Sequence[float], start: int, outliers: set[int]
) -> LevelChange | None:
    """Without any noise every deviation counts, once it persists."""
    off = 0
    for index in range(start, len(values)):
        if values[index] == values[start]:
            off = 0
            continue
        off += 1
        outliers.add(index)
        if off == OFF_CONSTANT:
            return LevelChange(index - OFF_CONSTANT + 1, index)
    return None


def _chart(values: Sequence[float], start: int, outliers: set[int]) -> LevelChange | None:
    level = _Level(values[start : start + WARM_UP])
    rise = fall = 0.0
    rise_from = fall_from = start + WARM_UP
    for index in range(start + WARM_UP, len(values)):
        score = level.score(values[index])
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
            since = rise_from if rise > DECISION else fall_from
            scores = [level.score(value) for value in values[since : index + 1]]
            return LevelChange(since + _likeliest_index(scores), index)
    return None


def _likeliest_index(scores: Sequence[float]) -> int:
    """Index from which a level other than 0 explains the scores best: maximum likelihood for
    Gaussian scores of std 1 and an unknown new level."""
    total, best, found = 0.0, 0.0, 0
    for index in range(len(scores) - 1, -1, -1):
        total += min(WINSOR, max(-WINSOR, scores[index]))
        gain = total * total / (len(scores) - index)
        if gain > best:
            best, found = gain, index
    return found


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

    def score(self, value: float) -> float:
        """Standard normal if `value` comes from the level so far."""
        count = self._count
        deviation = (value - self._mean) / self._spread()
        score = _normal_score(deviation / math.sqrt(1.0 + 1.0 / count), count - 1)
        memory = self._autocorrelation()
        # The sum of a series with memory grows like that of noise of this larger spread.
        return score * math.sqrt((1.0 - memory) / (1.0 + memory))

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


def _normal_score(t: float, freedom: int) -> float:
    """Student's t → normal score: Wallace's approximation (Annals of Mathematical Statistics 30,
    1959), within 0.02 of the exact one from 19 degrees of freedom on up to 4."""
    factor = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)
    return math.copysign(factor * math.sqrt(freedom * math.log1p(t * t / freedom)), t)
