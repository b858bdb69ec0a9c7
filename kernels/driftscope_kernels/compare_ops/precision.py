"""How far one rounding can move a number, and numbers solved for within an uncertainty.

In: dtypes, intervals, functions of one number. Out: roundoffs; the shortest decimal; where a
function is largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import torch
from torch import Tensor

#: One rounding to float32, in which ops of 16 bit compute between their own roundings.
FLOAT32: Final = torch.finfo(torch.float32).eps / 2
#: Digits that are tried for a number solved for: nobody configures more.
_DIGITS: Final = range(1, 8)
#: Golden section: the bracket shrinks by 0.618 a step, so 60 steps leave 3e-13 of it.
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_GOLDEN_STEPS: Final = 60


def roundoff(dtype: torch.dtype) -> float:
    """Largest relative change by one rounding to nearest of a normal number: half an ulp."""
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """Twice the largest absolute change by one rounding where numbers are subnormal."""
    info = torch.finfo(dtype)
    return info.tiny * info.eps


def input_roundoff(given: Tensor, dtype: torch.dtype) -> float:
    """Relative change by bringing `given` to `dtype`: 0 where every number of it fits."""
    if not given.is_floating_point() or torch.promote_types(given.dtype, dtype) == dtype:
        return 0.0
    return roundoff(dtype)


def shortest_decimal(low: float, high: float) -> float | None:
    """The number of fewest significant digits in [low, high], nearest to its middle; or None."""
    middle = (low + high) / 2
    for digits in _DIGITS:
        rounded = float(Decimal(f"{middle:.{digits - 1}e}"))
        if low <= rounded <= high:
            return rounded
    return None


def largest_at(function: Callable[[float], float], low: float, high: float) -> float:
    """Where `function`, with one maximum in [low, high], is largest. By golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_GOLDEN_STEPS):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
