"""Number, or Undefined with its reason; the array types that flow through the comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
LogprobArray: TypeAlias = NDArray[np.floating[Any]]  # float32 or float64, as it was given

# Beyond this length OpenBLAS's ddot wakes its threads. They gain nothing on sums this short, and
# then spin for tens of milliseconds during the compiled pass.
LONGEST_DOT = 10_000


def dot(first: FloatArray | IntArray, second: FloatArray | IntArray | BoolArray) -> float:
    """np.dot on one thread."""
    starts = range(0, max(first.size, 1), LONGEST_DOT)
    blocks = (slice(start, start + LONGEST_DOT) for start in starts)
    return float(sum(np.dot(first[block], second[block]) for block in blocks))


@dataclass(frozen=True, slots=True)
class Undefined:
    """Takes the place of a number; JSON shows null and keeps the reason."""

    reason: str


Number: TypeAlias = float | Undefined

NO_TOKENS = Undefined("no unmasked token has a finite log-probability on both sides")
NEEDS_EVERY_TOKEN = Undefined("needs every token at once, and the step was analysed in shards")
ONE_VALUE = Undefined("an unbiased standard deviation needs at least two values, there is one")
OVERFLOW = Undefined("overflows float64: a difference of log-probabilities is too large")


def finite(value: float) -> Number:
    return float(value) if math.isfinite(value) else OVERFLOW


def mean(values: FloatArray) -> Number:
    if not values.size:
        return NO_TOKENS
    with np.errstate(over="ignore", invalid="ignore"):
        return finite(float(values.mean()))


def unbiased_std(values: FloatArray) -> Number:
    """Divides by n − 1, as torch.std does and verl, SkyRL and others therefore report."""
    if not values.size:
        return NO_TOKENS
    if values.size == 1:
        return ONE_VALUE
    with np.errstate(over="ignore", invalid="ignore"):
        return finite(float(values.std(ddof=1)))


def minimum(values: FloatArray) -> Number:
    return finite(float(values.min())) if values.size else NO_TOKENS


def maximum(values: FloatArray) -> Number:
    return finite(float(values.max())) if values.size else NO_TOKENS
