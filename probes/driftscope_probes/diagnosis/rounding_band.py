"""Rounding band: how large |Δ| may be by rounding alone, for the probabilities that a step has.

In: a floor, tokens by probability, and the histogram of |Δ|. Out: Band, with the verdict on size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO, Floor
from driftscope_probes.mismatch.histogram import EDGES, Histogram
from driftscope_probes.plural import counted, noun

#: Share of the tokens that rounding at AT_FLOOR_UP_TO times the floor puts beyond the band, were it
#: normal; its tails are heavier, so that healthy steps have up to so many times the share there.
BEYOND, HEAVY_TAILS = 1e-3, 5.0


@dataclass(frozen=True, slots=True)
class Band:
    up_to: float  # nats, an edge of the histogram
    tokens: int
    beyond: int  # tokens of the histogram above it
    inside: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {"up_to": self.up_to, "inside": self.inside, "sentence": self.sentence}


def rounding_band(
    floor: Floor,
    excess: float | None,
    by_probability: Sequence[int],
    histogram: Histogram,
    floor_words: str,
) -> Band | None:
    """excess: of the whole step over the floor, from its diagnosis. by_probability: tokens in bins
    of equal width from 0 to 1. None without a token that could differ."""
    tokens = histogram.tokens
    bins = len(by_probability)
    rooms = [1.0 - (place + 0.5) / bins for place in range(bins)]
    if not tokens or not sum(by_probability):
        return None
    sigma = AT_FLOOR_UP_TO * floor.sigma
    total = sum(by_probability)

    def share_beyond(size: float) -> float:
        tails = (
            count * math.erfc(size / (math.sqrt(2.0) * sigma * room))
            for count, room in zip(by_probability, rooms, strict=True)
        )
        return sum(tails) / total

    up_to = next((edge for edge in EDGES if share_beyond(edge) <= BEYOND), EDGES[-1])
    first = EDGES.index(up_to)
    beyond = int(histogram.counts[first:].sum()) + histogram.above
    whole = excess or 0.0
    inside = beyond <= HEAVY_TAILS * BEYOND * tokens and whole <= AT_FLOOR_UP_TO
    lie = noun(tokens, "lies", "lie")
    found = f"{beyond:,} of {counted(tokens, 'token')} ({beyond / tokens:.2%}) {lie}"
    reach = f"beyond {up_to:.3g} nats, where rounding at twice {floor_words} ends"
    if inside:
        sentence = f"Inside what rounding allows: {found} {reach}."
    elif whole > AT_FLOOR_UP_TO:
        sentence = (
            f"Outside what rounding allows: all together {whole:,.3g} times {floor_words}, and "
            f"{found} {reach}."
        )
    else:
        sentence = f"Outside what rounding allows: {found} {reach} for all but about {BEYOND:.1%}."
    return Band(up_to, tokens, beyond, inside, sentence)
