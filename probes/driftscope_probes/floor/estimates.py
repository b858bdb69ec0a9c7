"""Sigma of what two ways of scoring the same tokens differ by, with its interval over sequences.

In: log-probabilities of the same tokens by way. Out: Estimate. Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch import Undefined
from driftscope_probes.mismatch.resampling import (
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    SequenceMean,
    mean_intervals,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    sigma: float  # nats on the logits: sqrt(sum Δ² / sum (1 − p)²)
    interval: tuple[float, float] | None  # 95 %, resampling sequences; None below two of them
    tokens: int  # that both ways scored
    sequences: int


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Per sequence; a variance of the noise on the logits is a quotient of two of them."""

    squares: Floats  # [sequences] sum of a product of two differences, in nats²
    room: Floats  # [sequences] sum of (1 − p)²
    tokens: int

    def value(self) -> float:
        total = float(self.room.sum())
        return float(self.squares.sum()) / total if total else 0.0


def sequence_sums(
    first: Floats, second: Floats, rollout: Floats, cu_seqlens: NDArray[np.int64]
) -> Sums:
    """Of `first` · `second`, two differences per token; `rollout` are log-probabilities.

    Tokens that are not finite in one of the three take no part.
    """
    used = np.isfinite(first) & np.isfinite(second) & np.isfinite(rollout)
    product = np.where(used, first, 0.0) * np.where(used, second, 0.0)
    room = np.where(used, np.expm1(np.minimum(np.where(used, rollout, 0.0), 0.0)), 0.0) ** 2
    return Sums(_by_sequence(product, cu_seqlens), _by_sequence(room, cu_seqlens), int(used.sum()))


def _by_sequence(values: Floats, cu_seqlens: NDArray[np.int64]) -> Floats:
    index = np.repeat(np.arange(cu_seqlens.size - 1), np.diff(cu_seqlens))
    sums = np.bincount(index, weights=values, minlength=cu_seqlens.size - 1)
    return sums.astype(np.float64)  # bincount of no token at all has integers


def estimate(difference: Floats, rollout: Floats, cu_seqlens: NDArray[np.int64]) -> Estimate | None:
    """None where no token leaves room for noise."""
    sums = sequence_sums(difference, difference, rollout, cu_seqlens)
    if not sums.room.any():
        return None
    return _of(sums, sums.value())


def joined(first: Estimate, second: Estimate) -> Estimate:
    """Two independent errors: the root of the sum of their squares; the interval likewise."""
    interval = None
    if first.interval is not None and second.interval is not None:
        low, high = (
            math.hypot(one, other)
            for one, other in zip(first.interval, second.interval, strict=True)
        )
        interval = (low, high)
    return Estimate(
        math.hypot(first.sigma, second.sigma),
        interval,
        min(first.tokens, second.tokens),
        min(first.sequences, second.sequences),
    )


def _of(sums: Sums, variance: float) -> Estimate:
    means = {"variance": SequenceMean(sums.squares, sums.room)}
    found = mean_intervals(means, resamples=DEFAULT_RESAMPLES, seed=DEFAULT_SEED)["variance"]
    interval = None
    if not isinstance(found, Undefined):
        interval = (math.sqrt(found.low), math.sqrt(found.high))
    return Estimate(math.sqrt(variance), interval, sums.tokens, int((sums.room > 0).sum()))
