"""Number formats that matrix units read and write, and how a product of two of them is made.

In: the value that a product is to have. Out: two factors that the formats hold exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    exponent_bits: int
    fraction_bits: int  # after the leading one
    largest: int  # exponent of the largest power of two
    least_normal: int  # exponent of the smallest number that has a leading one
    infinity: bool = True

    @property
    def smallest(self) -> int:
        """Exponent of the smallest number above zero."""
        return self.least_normal - self.fraction_bits

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits


FORMATS: Final[Mapping[str, Format]] = {
    each.name: each
    for each in (
        Format("fp64", 11, 52, 1023, -1022),
        Format("fp32", 8, 23, 127, -126),
        Format("tf32", 8, 10, 127, -126),
        Format("bf16", 8, 7, 127, -126),
        Format("fp16", 5, 10, 15, -14),
        Format("e5m2", 5, 2, 15, -14),
        Format("e4m3", 4, 3, 8, -6, infinity=False),
        # The two of AMD: one more below, no infinity.
        Format("e5m2fnuz", 5, 2, 15, -15, infinity=False),
        Format("e4m3fnuz", 4, 3, 7, -7, infinity=False),
        Format("e3m2", 3, 2, 4, -2, infinity=False),
        Format("e2m3", 2, 3, 2, 0, infinity=False),
        Format("e2m1", 2, 1, 2, 0, infinity=False),
    )
}


class OutOfRangeError(ValueError):
    """No two numbers of the formats have this product."""


#: A reading asks for a few values, each thousands of times.
@lru_cache(maxsize=4096)
def factors(value: float, a: Format, b: Format) -> tuple[float, float]:
    """Two numbers of `a` and `b` whose product is `value`, a significand of few bits times a power
    of two. Both have a leading one where that is possible: units may flush what has none."""
    if value == 0:
        return 0.0, 0.0
    significand, exponent = math.frexp(value)
    significand, exponent = significand * 2, exponent - 1
    for normal in (True, False):
        low_a, low_b = (each.least_normal if normal else each.smallest for each in (a, b))
        low, high = max(low_a, exponent - b.largest), min(a.largest, exponent - low_b)
        if low <= high:
            of_a = min(max(exponent // 2, low), high)
            return math.ldexp(significand, of_a), math.ldexp(1.0, exponent - of_a)
    raise OutOfRangeError(
        f"{value:g} is no product of {a.name} and {b.name}: the smallest is "
        f"2^{a.smallest + b.smallest}, the largest of one bit 2^{a.largest + b.largest}"
    )


def exponent_range(a: Format, b: Format, *, normal: bool) -> tuple[int, int]:
    """Exponents of the smallest and the largest power of two that is a product."""
    low = a.least_normal + b.least_normal if normal else a.smallest + b.smallest
    return low, a.largest + b.largest
