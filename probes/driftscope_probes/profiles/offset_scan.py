"""Offset scan: whether one side speaks of a neighbouring token.

In: tokens, block by block. Out: Pearson's correlation of the probabilities at offsets −3 to 3, and
whether another one than 0 tells something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from driftscope_probes.mismatch.number import FloatArray, dot
from driftscope_probes.tokens import Tokens

#: Offset k holds the trainer's value at i against the rollout's at i − k.
OFFSETS: Final = tuple(range(-3, 4))
#: Another offset tells something from this correlation on, and so far above that in place.
LEAST_CORRELATION, LEAST_LEAD = 0.5, 0.2
#: Of fewer pairs a correlation says nothing.
LEAST_PAIRS: Final = 16


@dataclass(slots=True)
class OffsetScan:
    #: [offsets, 6] of pairs: count, Σx, Σy, Σx², Σy², Σxy
    sums: FloatArray = field(default_factory=lambda: np.zeros((len(OFFSETS), 6)))

    def add(self, tokens: Tokens) -> None:
        """Whole sequences; neighbours are those of the arrays, masked tokens between them."""
        with np.errstate(over="ignore", invalid="ignore"):
            rollout, trainer = (
                np.exp(np.minimum(side.astype(np.float64), 0.0))
                for side in (tokens.rollout, tokens.trainer)
            )
        counts = tokens.takes_part
        sequence = np.repeat(np.arange(tokens.sequences), np.diff(tokens.cu_seqlens))
        for row, offset in enumerate(OFFSETS):
            here = slice(max(0, offset), tokens.rollout.size + min(0, offset))
            there = slice(max(0, -offset), tokens.rollout.size - max(0, offset))
            pair = counts[here] & counts[there] & (sequence[here] == sequence[there])
            x, y = trainer[here], rollout[there]
            pair &= np.isfinite(x) & np.isfinite(y)
            x, y = x[pair], y[pair]
            self.sums[row] += (x.size, x.sum(), y.sum(), dot(x, x), dot(y, y), dot(x, y))

    def correlations(self) -> dict[int, float | None]:
        """By offset; None where too few pairs, or no variation, give none."""
        return {offset: _pearson(row) for offset, row in zip(OFFSETS, self.sums, strict=True)}

    @property
    def telling(self) -> int | None:
        """The offset at which the sides agree, where that is not in place."""
        known = {
            offset: value for offset, value in self.correlations().items() if value is not None
        }
        if not known:
            return None
        best = max(known, key=lambda offset: known[offset])
        in_place = known.get(0, 0.0)
        lead = known[best] - in_place
        return best if known[best] > LEAST_CORRELATION and lead > LEAST_LEAD else None

    @property
    def sentence(self) -> str | None:
        """None where no offset tells something."""
        offset = self.telling
        if offset is None:
            return None
        found = self.correlations()
        in_place = found[0]
        beside = "unknown" if in_place is None else f"{in_place:.3f}"
        return (
            f"The trainer's value at i follows the rollout's at i{-offset:+d} "
            f"(offset {offset:+d}): correlation {found[offset]:.5f}, against {beside} in place."
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "correlation": {str(offset): value for offset, value in self.correlations().items()},
            "telling": self.telling,
            "sentence": self.sentence,
        }


def _pearson(sums: FloatArray) -> float | None:
    count, x, y, xx, yy, xy = sums.tolist()
    if count < LEAST_PAIRS:
        return None
    spread_x, spread_y = xx - x * x / count, yy - y * y / count
    # Below the rounding of the sums there is no spread.
    if spread_x <= 1e-12 * max(xx, 1e-300) or spread_y <= 1e-12 * max(yy, 1e-300):
        return None
    return float((xy - x * y / count) / np.sqrt(spread_x * spread_y))
