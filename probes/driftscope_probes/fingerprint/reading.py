"""What a unit turned out to be, all of it from outside.

In: a unit that adds products to c. Out: a Reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.fingerprint.order import Order, read_order
from driftscope_probes.fingerprint.precision import (
    Alignment,
    Places,
    Rounding,
    alignment,
    places_with_c,
    result_bits,
    result_rounding,
)
from driftscope_probes.fingerprint.specials import fused_product, infinities, subnormals
from driftscope_probes.fingerprint.unit import Unit


@dataclass(frozen=True, slots=True)
class Reading:
    order: Order
    alignment: Alignment | None  # None: products are not added at once
    result_bits: int  # after the leading one, of the sum when it is rounded
    rounding: Rounding  # of the sum
    fused: bool | None  # None: every product fits into the accumulator
    subnormals: str
    infinities: str


def read_unit(unit: Unit) -> Reading:
    """Raises UnreadableTreeError."""
    # One product beside c says how much a sum holds, which the order has to know first.
    first = result_bits(unit, places_with_c(1))
    order = read_order(unit, first)
    places = places_with_c(order.at_once)
    bits = result_bits(unit, places)
    aligned = alignment(unit, order.at_once, with_c=order.c_at_once)
    return Reading(
        order=order,
        alignment=aligned,
        result_bits=bits,
        rounding=_rounding(unit, order, places, bits),
        fused=fused_product(unit, places, bits),
        subnormals=subnormals(unit, places),
        infinities=infinities(unit, places),
    )


def _rounding(unit: Unit, order: Order, places: Places, bits: int) -> Rounding:
    found = result_rounding(unit, places, bits)
    if found == "of its own" and order.at_once > 1 and not order.exact:
        # A tree of two-term sums rounds within; with one product beside c there is one rounding.
        return result_rounding(unit, places_with_c(1), bits)
    return found
