"""What a unit does with numbers that are not ordinary: products that do not fit, subnormals,
infinities and NaN.

In: a unit, and leaves that meet in one sum. Out: words.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftscope_probes.fingerprint.precision import Places
from driftscope_probes.fingerprint.unit import Probe, Unit

KEPT: Final = "kept"


def fused_product(unit: Unit, places: Places, bits: int) -> bool | None:
    """Whether a product joins the sum before it is rounded; None where every product fits anyway.

    (1 + u)² = 1 + 2u + u². With 1 + 2u taken away, u² is left of a product that was not rounded.
    """
    fraction = min(unit.a.fraction_bits, unit.b.fraction_bits)
    if 2 * fraction <= bits:
        return None
    u = 2.0**-fraction
    product, taken = (1 + u, 1 + u), -(1 + 2 * u)
    one = places.ones[0]
    if places.small < unit.shift:
        probes: list[Probe] = [{0: taken, one: product}]
    else:  # whichever comes first is rounded on its own
        probes = [{one: (taken, 1.0), places.small: product}]
        probes.append({one: product, places.small: (taken, 1.0)})
    return bool(np.any(unit.sums(probes) == u * u))


def subnormals(unit: Unit, places: Places) -> str:
    """ "kept", or what is flushed to zero."""
    leaf = places.ones[0]
    tiny, large = 2.0**unit.a.smallest, 2.0**unit.b.largest
    taken_in = float(unit.sums([{leaf: (tiny, large)}])[0]) == tiny * large
    given_out = _given_out(unit, leaf)
    if taken_in and given_out is not False:
        return KEPT
    if not taken_in:
        return "flushed" if given_out is False else "flushed in the inputs"
    return "flushed in the result"


def _given_out(unit: Unit, leaf: int) -> bool | None:
    """None where no product of the formats is a subnormal result and there is no c."""
    small = 2.0 ** (unit.result.least_normal - 1)
    if unit.c is not None:
        if unit.c.smallest > unit.result.least_normal - 1:
            return None
        return float(unit.sums([{0: small}])[0]) == small
    if unit.leaf_range(normal=False)[0] > unit.result.least_normal - 1:
        return None
    return float(unit.sums([{leaf: small}])[0]) == small


def infinities(unit: Unit, places: Places) -> str:
    """ "kept" where infinity and NaN come out as IEEE 754 has it, and else what does not."""
    one, other = places.ones[0], places.small
    if unit.c is not None:
        made: list[Probe] = [{0: math.inf}, {0: -math.inf}, {0: math.nan}]
    elif unit.a.infinity:
        made = [{one: (each, 1.0)} for each in (math.inf, -math.inf, math.nan)]
    else:
        return "the format has none"
    if unit.a.infinity:
        made += [{one: (math.inf, 1.0), other: _minus_infinity(unit, other)}, {one: (math.inf, 0)}]
    wanted = [math.inf, -math.inf, math.nan, math.nan, math.nan][: len(made)]
    with np.errstate(invalid="ignore"):
        got = unit.sums(made)
    if np.array_equal(got, np.array(wanted), equal_nan=True):
        return KEPT
    pairs = zip(wanted, got.tolist(), strict=True)
    return "; ".join(
        sorted({f"{w:g} comes out as {g:g}" for w, g in pairs if not (w == g or w != w != g != g)})
    )


def _minus_infinity(unit: Unit, leaf: int) -> float | tuple[float, float]:
    return -math.inf if leaf < unit.shift else (-math.inf, 1.0)
