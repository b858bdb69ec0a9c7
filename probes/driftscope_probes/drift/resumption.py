"""What a resumed attempt did to one number: how far from its level before, for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.drift.cusum import normal_score
from driftscope_probes.drift.detection import Noise
from driftscope_probes.drift.events import NumberMoved, ratio_of
from driftscope_probes.drift.split import KNOWN_BEFORE, MAD_CONSISTENCY, best_split
from driftscope_probes.mismatch.number import FloatArray, IntArray

#: Fewest values before a resume that are a level, and most that are read.
LEVEL: Final = 3
MAX_LEVEL: Final = 100
#: Normal score beyond which a value after the resume is off the level before. The index is known,
#: so that one value in 16,000 is off by chance; one alone has to be further off.
OFF: Final = 4.0
OFF_ALONE: Final = 6.0
#: Values in a row within OFF after which the number is back.
BACK: Final = 2
#: Normal score of two means at which a small difference that lasts is told.
LASTS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Resumption:
    step: int  # with which the attempt begins
    moved: NumberMoved | None
    settled: int  # index in the series up to which changes are those of the resume

    @property
    def lasts(self) -> bool:
        return self.moved is not None and self.moved.returned_at is None


@dataclass(frozen=True, slots=True)
class _Level:
    center: float
    spread: float  # of one more value; 0: a constant
    freedom: float

    def score(self, values: FloatArray) -> FloatArray:
        """[n] → [n] normal scores, without a sign."""
        away = np.abs(values - self.center)
        if self.spread == 0.0:
            return np.where(away > 0.0, math.inf, 0.0)
        return np.array([normal_score(float(t), self.freedom) for t in away / self.spread])


def resumption(
    metric: str,
    steps: IntArray,
    values: FloatArray,
    levels: FloatArray,
    span: tuple[int, int, int],
    noise: Noise,
) -> Resumption | None:
    """steps, values, levels: [n], of the whole series, in the number's unit and on its scale. span:
    indices at which the level before the resume, the attempt and the next attempt begin. None where
    too few values are before it."""
    first, start, end = span
    first = max(first, start - MAX_LEVEL)
    if start - first < LEVEL:
        return None
    level = _level(levels[first:start], noise)
    after = levels[start:end]
    off = level.score(after)
    away = _values_away(off)
    step = int(steps[start])
    if away == 0 or (away == 1 and off[0] <= OFF_ALONE):
        away = after.size if _differs(levels[first:end], start - first, noise) else 0
    if away == 0:
        return Resumption(step, None, start)
    returned = int(steps[start + away]) if away < after.size else None
    before, now = float(np.median(values[first:start])), float(np.median(values[start:][:away]))
    units = abs(float(np.median(after[:away])) - level.center) / level.spread if level.spread else 0
    moved = NumberMoved(
        *(metric, "shift", step, step, step, step, before, now),
        ratio=ratio_of(now, before),
        noise_units=units if units and math.isfinite(units) else None,
        returned_at=returned,
    )
    return Resumption(step, moved, start + away + BACK)


def _level(values: FloatArray, noise: Noise) -> _Level:
    center = float(np.median(values))
    spread = MAD_CONSISTENCY * float(np.median(np.abs(values - center)))
    if spread == 0.0 and np.ptp(values) > 0.0:
        spread = float(values.std(ddof=1))
    freedom = float(values.size - 1)
    squares = freedom * spread * spread
    # An exact constant keeps no noise: any other value is off it.
    if noise.typical is not None and spread > 0.0:
        squares += KNOWN_BEFORE * noise.typical * noise.typical
        freedom += KNOWN_BEFORE
    return _Level(center, math.sqrt(squares / freedom * (1.0 + 1.0 / values.size)), freedom)


def _values_away(off: FloatArray) -> int:
    """How many values go by before BACK in a row (or the last ones) are within OFF."""
    inside = off <= OFF
    for index in range(off.size):
        if bool(np.all(inside[index : index + BACK])):
            return index
    return int(off.size)


def _differs(levels: FloatArray, at: int, noise: Noise) -> bool:
    """Whether the values from index `at` on have another mean, too near to see in single ones."""
    split = best_split(levels, noise.typical, near_ends=True)
    return split is not None and split.score > LASTS and abs(split.at - at) <= 1
