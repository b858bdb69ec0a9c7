"""Body: the tokens of a step on which shapes are read, as equally long arrays.

In: nothing. Out: the value that signals, places and relations share, and its two sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
#: Added to 1 - p where it divides: below it float32 rounding of r itself (6e-8) would show.
CERTAINTY_EPSILON = 1e-3
#: Below this many tokens no shape is read.
FEW_TOKENS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """Unmasked tokens whose two values are possible log-probabilities, in their order."""

    token: Ints  # [n] index into the step
    sequence: Ints  # [n]
    index: Ints  # [n] of the token in its response, from 0
    from_end: Ints  # [n] 1 for the last unmasked token of its sequence
    rollout: Floats  # [n] nats
    trainer: Floats  # [n] nats
    delta: Floats  # [n] nats, trainer - rollout
    certainty: Floats  # [n] p = exp(rollout), at most 1
    residual: Floats  # [n] Δ / (1 - p), nats on the logits
    size: Floats  # [n] log |residual|, not below what rounding leaves

    def of(self, rows: Bools) -> Body:
        return Body(*(getattr(self, name)[rows] for name in self.__slots__))

    @property
    def tokens(self) -> int:
        return int(self.delta.size)


def noise_on_logits(body: Body) -> float | None:
    """sqrt(sum Δ² / sum (1 - p)²); None without a token that could differ."""
    weight = float(np.sum((1.0 - body.certainty + CERTAINTY_EPSILON) ** 2))
    if body.tokens == 0 or weight == 0.0:
        return None
    return float(np.sqrt(np.sum(body.delta**2) / weight))


#: Median of |N(0, 1)|.
MEDIAN_OF_NORMAL = 0.6745


def typical(residual: Floats) -> float:
    """Standard deviation from the median, so that wild values do not count; 0 of none."""
    return float(np.median(np.abs(residual))) / MEDIAN_OF_NORMAL if residual.size else 0.0


def reach_of(body: Body) -> float | None:
    residual = np.abs(body.residual[body.certainty < 0.9])
    if residual.size < 4 * FEW_TOKENS:
        return None
    ordinary = typical(residual)
    return float(np.quantile(residual, 0.995)) / ordinary if ordinary > 0 else None
