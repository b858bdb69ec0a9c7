"""Split: a step's tokens in two, those that differ more and the rest.

In: a body and which of its tokens. Out: how much of the differences in size the split accounts for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import Body, Bools, Floats, Ints, typical
from driftscope_probes.mismatch.number import dot

#: Coordinates beyond this count as one: no context is longer.
MAX_COORDINATE = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The body in two: the tokens that differ more, and the rest."""

    dirty: Bools  # [body]
    gain: float  # sum of squares explained, in units of the variance within
    contrast: float  # mean log size of the dirty minus that of the clean: log of the ratio
    clean_sigma: float  # typical noise on the logits of the rest, nats
    dirty_sigma: float
    at: float = 0.0  # the cut, the period, the number of tokens from the end …

    @property
    def fraction(self) -> float:
        return float(self.dirty.mean())


def split_of(body: Body, dirty: Bools, at: float = 0.0, least: float = 0.0) -> Split | None:
    """None where a part has too few tokens to speak, or where the split gains less than `least`."""
    count = int(np.count_nonzero(dirty))
    rest = dirty.size - count
    if count < 4 or rest < 4:
        return None
    total, square = float(body.size.sum()), dot(body.size, body.size)
    inside = dot(body.size, dirty)
    mean_dirty, mean_clean = inside / count, (total - inside) / rest
    contrast = mean_dirty - mean_clean
    within = square - count * mean_dirty**2 - rest * mean_clean**2
    gain = contrast**2 * count * rest / dirty.size / max(within / dirty.size, 0.1)
    if gain < least or contrast <= 0:
        return None
    return Split(
        dirty, gain, contrast, typical(body.residual[~dirty]), typical(body.residual[dirty]), at
    )


def small_groups(labels: NDArray[np.integer]) -> Ints:
    """The same groups, as small numbers from 0."""
    wide = labels.astype(np.int64)
    if wide.size == 0:
        return wide
    lowest, highest = int(wide.min()), int(wide.max())
    if highest - lowest < MAX_COORDINATE:
        small: Ints = wide - lowest
        return small
    groups: Ints = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return groups


def better(one: Split | None, other: Split | None) -> Split | None:
    if one is None or other is None:
        return one or other
    return (
        one if one.gain * np.sign(one.contrast) >= other.gain * np.sign(other.contrast) else other
    )


def best_cut(weights: Floats, means: Floats) -> tuple[int | None, float]:
    """Where the weighted means before and after differ most, the later being larger."""
    if means.size < 2:
        return None, 0.0
    total = float(weights.sum())
    sums = np.cumsum(weights * means)[:-1]
    before = np.cumsum(weights)[:-1]
    after = total - before
    whole = float(np.sum(weights * means))
    rise = (whole - sums) / after - sums / before
    gain = np.where(rise > 0, before * after / total * rise**2, -np.inf)
    best = int(np.argmax(gain))
    if not np.isfinite(gain[best]):
        return None, 0.0
    return best + 1, float(gain[best])
