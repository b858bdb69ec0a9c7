"""Stored bits: how fine the grid is on which a side's values lie, whatever dtype carries them.

In: log-probabilities. Out: significant bits, half a step of the grid, and what storing on it costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.terms import SENTINEL_AT_MOST
from driftscope_probes.tokens import Tokens

#: Significant bits of bfloat16, float16 and of what a float32 holds.
BFLOAT16_BITS, FLOAT16_BITS, FLOAT32_BITS = 8, 11, 24
#: From fewer values, or fewer different ones, no grid is read: a few round numbers lie on any.
LEAST_VALUES, LEAST_DIFFERENT = 32, 16
#: Share of the values on a grid: a stray one may have been computed elsewhere.
ON_GRID = 0.99
LARGE = 0.99
#: A grid is read from about so many values.
MOST_LOOKED_AT = 2**11
FORMAT_OF_BITS = {BFLOAT16_BITS: "bf16", FLOAT16_BITS: "fp16"}


@dataclass(frozen=True, slots=True)
class StoredBits:
    """Of the unmasked values of a side that are finite and no sentinels.

    Half a step is that of a value as large as the 99th percentile; of float32's own grid it is read
    from a part of them.
    """

    rollout_significant_bits: int  # 24: float32's own
    trainer_significant_bits: int
    rollout_half_step_p99: float  # nats; 0 without a value that is none of those
    trainer_half_step_p99: float


def stored_bits(tokens: Tokens) -> StoredBits:
    (of_rollout, rollout_step), (of_trainer, trainer_step) = (
        _grid(values, tokens) for values in (tokens.rollout, tokens.trainer)
    )
    return StoredBits(of_rollout, of_trainer, rollout_step, trainer_step)


def _grid(values: NDArray[Any], tokens: Tokens) -> tuple[int, float]:
    looked = _looked_at(values, tokens)
    bits = significant_bits(looked)
    # The whole side is only looked through where its grid is coarse.
    return bits, half_step_p99(looked if bits == FLOAT32_BITS else values[tokens.takes_part], bits)


def _looked_at(values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
    every = slice(None, None, max(1, values.size // MOST_LOOKED_AT))
    chosen = values[every]
    return chosen if tokens.mask is None else chosen[tokens.mask[every]]


def significant_bits(values: NDArray[Any]) -> int:
    """The smallest mantissa that holds all but a hundredth of the values, other than 0."""
    looked = values[:: max(1, values.size // MOST_LOOKED_AT)]
    with np.errstate(invalid="ignore"):
        looked = looked[(looked != 0) & (looked > SENTINEL_AT_MOST) & (looked < np.inf)]
    if looked.size < LEAST_VALUES:
        return FLOAT32_BITS
    mantissa, _ = np.frexp(looked)
    for bits in FORMAT_OF_BITS:
        scaled = mantissa * 2.0**bits
        if float((scaled == np.round(scaled)).mean()) > ON_GRID:
            enough = np.unique(looked).size >= LEAST_DIFFERENT
            return bits if enough else FLOAT32_BITS
    return FLOAT32_BITS


def half_step_p99(values: NDArray[Any], bits: int) -> float:
    """Nats, at the 99th percentile of the sizes that could be log-probabilities: steps double with
    every octave, and the few rarest tokens would speak for all."""
    with np.errstate(invalid="ignore"):
        sizes = np.abs(values[(values > SENTINEL_AT_MOST) & (values < np.inf)])
    if not sizes.size:
        return 0.0
    # By partition: numpy's quantile takes several times as long.
    place = int(LARGE * (sizes.size - 1))
    return float(np.ldexp(1.0, math.frexp(float(np.partition(sizes, place)[place]))[1] - bits - 1))


def storing_noise(values: NDArray[Any], bits: int) -> float:
    """Root mean square of rounding to the grid, nats: a twelfth of the squared step."""
    if not values.size:
        return 0.0
    _, exponent = np.frexp(values.astype(np.float64))
    step = np.ldexp(1.0, exponent - bits)
    return float(np.sqrt(np.mean(step**2) / 12.0))
