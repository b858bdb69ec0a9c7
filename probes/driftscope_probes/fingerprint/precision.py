"""How many bits a unit keeps: of terms beside a larger one, and of the sum when it is rounded.

In: a unit, and which of its leaves meet in one sum. Out: bits after the leading one, and roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from driftscope_probes.fingerprint.unit import Probe, Unit, Values

#: More than fp64 keeps: what is still there this far below is kept whole.
MOST_BITS: Final = 60
#: The sum is carried at most this many places, so that its last bits show what rounding does.
MOST_CARRY: Final = 4
Rounding = Literal[
    "toward zero", "nearest even", "nearest away", "down", "up", "exact", "of its own"
]


@dataclass(frozen=True, slots=True)
class Places:
    """Leaves that are added to each other: `ones` and `small` first, then `cancel`, which takes the
    ones away again so that what is left of `small` shows even in a narrower result."""

    ones: tuple[int, ...]
    small: int
    cancel: int | None = None
    scale: int = 0  # exponent of what each of the ones holds

    @property
    def total(self) -> float:
        return len(self.ones) * 2.0**self.scale

    def left_of(self, unit: Unit, smalls: Sequence[float], sign: int = 1) -> Values:
        """What the sum holds above the ones; `smalls` are fractions of them."""
        probes: list[Probe] = []
        for small in smalls:
            probe = dict.fromkeys(self.ones, sign * 2.0**self.scale)
            probe[self.small] = sign * small * self.total
            if self.cancel is not None:
                probe[self.cancel] = -sign * self.total
            probes.append(probe)
        sums = unit.sums(probes)
        left = sums if self.cancel is not None else sums - sign * self.total
        return sign * left / self.total


def places_with_c(at_once: int) -> Places:
    """Of a unit that adds `at_once` products to c."""
    carry = min(int(math.log2(at_once)), MOST_CARRY)
    return Places(tuple(range(1, 1 + 2**carry)), small=0)


def result_bits(unit: Unit, places: Places) -> int:
    """After the leading one, of the sum once it is rounded."""
    deepest = min(MOST_BITS, math.frexp(places.total)[1] - 1 - (unit.c or unit.result).smallest)
    smalls = _halves(deepest)
    return _first_other(places.left_of(unit, smalls.tolist()), smalls)


def _halves(count: int) -> Values:
    """½, ¼, …"""
    found: Values = np.ldexp(np.ones(count), -np.arange(1, count + 1))
    return found


def _first_other(got: Values, wanted: Values) -> int:
    return int(np.cumprod(got == wanted).sum())


#: How each rounds a number between 0 and 1 that lies above an even or an odd last bit.
ROUNDINGS: Final[Mapping[Rounding, Callable[[float, bool, bool], int]]] = {
    "toward zero": lambda part, odd, negative: 0,
    "nearest even": lambda part, odd, negative: int(part > 0.5 or (part == 0.5 and odd)),
    "nearest away": lambda part, odd, negative: int(part >= 0.5),
    "down": lambda part, odd, negative: int(negative),
    "up": lambda part, odd, negative: int(not negative),
}
PARTS: Final = (0.25, 0.5, 0.75)


def result_rounding(unit: Unit, places: Places, bits: int) -> Rounding:
    """Quarters of the last bit, above an even and an odd one, of both signs."""
    cases = [(odd, part) for odd in (False, True) for part in PARTS]
    seen: list[tuple[float, bool, bool, float]] = []
    for sign in (1, -1):
        smalls = [(odd + part) * 2.0**-bits for odd, part in cases]
        left = places.left_of(unit, smalls, sign) * 2.0**bits
        seen += [
            (part, odd, sign < 0, float(value) - odd)
            for (odd, part), value in zip(cases, left, strict=True)
        ]
    return _named(seen)


def _named(seen: Sequence[tuple[float, bool, bool, float]]) -> Rounding:
    for name, rounded in ROUNDINGS.items():
        if all(rounded(part, odd, negative) == got for part, odd, negative, got in seen):
            return name
    kept = all(part == got for part, _, _, got in seen)
    return "exact" if kept else "of its own"


@dataclass(frozen=True, slots=True)
class Alignment:
    """What is kept of a term beside a larger one before they are added."""

    bits: int | None  # below the larger one's leading bit; None: all of them
    rounding: Rounding


def alignment(unit: Unit, at_once: int, *, with_c: bool) -> Alignment | None:
    """+big and −big are added at once with a small one: what is lost of it was lost in aligning.

    None where fewer than three terms are added at once, or none of these formats is small enough.
    """
    if at_once + with_c < 3:
        return None
    _, high = unit.leaf_range(normal=False)
    of_products = (high, 3) if at_once > 2 else None
    # With products of a narrow format the small one has to be c, which reaches further down.
    for choice in (of_products, (0, 0), (high, 0)):
        if choice is not None:
            big, small = choice
            found = _aligned(unit, big, small)
            if found is not None:
                return found
    return None


def _aligned(unit: Unit, big: int, small: int) -> Alignment | None:
    deepest = min(MOST_BITS, big - _smallest(unit, small))
    smalls = _halves(deepest)
    kept = _first_other(_left(unit, big, small, smalls), smalls)
    if kept == MOST_BITS:
        return Alignment(None, "exact")
    if kept + 2 > deepest:
        return None
    # Three quarters of what is the last bit kept, of both signs.
    last = 2.0**-kept
    plus, minus = _left(unit, big, small, np.array([0.75, -0.75]) * last) / last
    return Alignment(kept, _named([(0.75, False, False, plus), (0.75, False, True, -minus)]))


def _left(unit: Unit, big: int, small: int, fractions: Values) -> Values:
    pair: Probe = {1: 2.0**big, 2: -(2.0**big)}
    return unit.sums([{**pair, small: float(each) * 2.0**big} for each in fractions]) / 2.0**big


def _smallest(unit: Unit, leaf: int) -> int:
    return unit.c.smallest if unit.c is not None and leaf == 0 else unit.leaf_range(normal=False)[0]
