"""Fills a block with the tokens that count, and counts what is odd among those that were given.

In: the given arrays. Out: float64 in the scratch, Oddities of the batch. A sequence's kept tokens
follow each other without gaps, so that a masked token leaves no trace in any sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.fused.block_sums import less
from driftscope_probes.mismatch.fused.compiled import compiled, summing
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.layouts import BITS_OF_INFINITY, Scratch
from driftscope_probes.mismatch.number import BoolArray, LogprobArray
from driftscope_probes.mismatch.terms import ABOUT_ZERO, SENTINEL_AT_MOST

BITS_OF_SENTINEL = int(np.float64(-SENTINEL_AT_MOST).view(np.int64))


@summing
def load_plain(
    rollout: LogprobArray, trainer: LogprobArray, scratch: Scratch, filled: int, odd: Any
) -> bool:
    """Load unmasked tokens; False, and nothing counted, where load_any has to look closer.

    It has to where a Δ is not finite, or a log-probability above 0 or a sentinel, which is rare.
    """
    tokens = rollout.size
    # Slices: an index with an offset might be negative, and would be looked up one by one.
    rollouts = scratch.rollout[filled : filled + tokens]
    trainers = scratch.trainer[filled : filled + tokens]
    differing = rollout_zero = trainer_zero = rollout_unmatched = trainer_unmatched = 0
    size_top, top, depth = 0, 0, 0
    for i in range(tokens):
        first, second = np.float64(rollout[i]), np.float64(trainer[i])
        rollouts[i], trainers[i] = first, second
        size_top = max(size_top, bits_of(abs(less(second, first))))
        top = max(top, max(bits_of(first), bits_of(second)))
        depth = max(depth, max(bits_of(-first), bits_of(-second)))
        differing += bits_of(first) != bits_of(second)
        rollout_zero += first == 0.0
        trainer_zero += second == 0.0
        rollout_unmatched += (first == 0.0) & (second < ABOUT_ZERO)
        trainer_unmatched += (second == 0.0) & (first < ABOUT_ZERO)
    if size_top >= BITS_OF_INFINITY or top > 0 or depth >= BITS_OF_SENTINEL:
        return False
    odd.unmasked += tokens
    odd.differing += differing
    odd.rollout_zero += rollout_zero
    odd.trainer_zero += trainer_zero
    odd.rollout_zero_unmatched += rollout_unmatched
    odd.trainer_zero_unmatched += trainer_unmatched
    return True


@compiled
def count_oddities(first: float, second: float, odd: Any) -> None:
    """Of a token one of whose values is not between the sentinels and 0."""
    odd.rollout_nonfinite += not math.isfinite(first)
    odd.trainer_nonfinite += not math.isfinite(second)
    odd.rollout_nan += math.isnan(first)
    odd.trainer_nan += math.isnan(second)
    odd.rollout_minus_infinity += first == -math.inf
    odd.trainer_minus_infinity += second == -math.inf
    odd.rollout_plus_infinity += first == math.inf
    odd.trainer_plus_infinity += second == math.inf
    odd.rollout_sentinel += -math.inf < first <= SENTINEL_AT_MOST
    odd.trainer_sentinel += -math.inf < second <= SENTINEL_AT_MOST
    odd.rollout_zero += first == 0.0
    odd.trainer_zero += second == 0.0
    odd.rollout_zero_unmatched += first == 0.0 and -math.inf < second < ABOUT_ZERO
    odd.trainer_zero_unmatched += second == 0.0 and -math.inf < first < ABOUT_ZERO
    if 0.0 < first < math.inf:
        odd.rollout_positive += 1
        odd.rollout_highest_bits = max(odd.rollout_highest_bits, bits_of(first))
    if 0.0 < second < math.inf:
        odd.trainer_positive += 1
        odd.trainer_highest_bits = max(odd.trainer_highest_bits, bits_of(second))


@compiled
def load_any(
    rollout: LogprobArray,
    trainer: LogprobArray,
    mask: BoolArray,
    start: int,
    tokens: int,
    scratch: Scratch,
    filled: int,
    odd: Any,
) -> int:
    """Load what is unmasked and has a finite Δ; how many tokens the block then holds.

    mask: [tokens], or empty where none was given.
    """
    for i in range(start, start + tokens):
        if mask.size and not mask[i]:
            continue
        first, second = np.float64(rollout[i]), np.float64(trainer[i])
        odd.unmasked += 1
        odd.differing += bits_of(first) != bits_of(second)
        if not (SENTINEL_AT_MOST < first < 0.0 and SENTINEL_AT_MOST < second < 0.0):
            count_oddities(first, second, odd)
        if math.isfinite(second - first):
            scratch.rollout[filled] = first
            scratch.trainer[filled] = second
            filled += 1
    return filled


@compiled
def first_differing(
    rollout: LogprobArray, trainer: LogprobArray, mask: BoolArray, start: int
) -> int:
    """Place of the first unmasked token from start on whose bits differ; there has to be one."""
    place = start
    while (mask.size and not mask[place]) or (
        bits_of(np.float64(rollout[place])) == bits_of(np.float64(trainer[place]))
    ):
        place += 1
    return place
