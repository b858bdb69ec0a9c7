"""Counts over a block of tokens: thresholds, ULP distances, histograms of fine buckets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.fused.block_sums import less
from driftscope_probes.mismatch.fused.close_sums import is_close
from driftscope_probes.mismatch.fused.compiled import compiled, inlined, summing
from driftscope_probes.mismatch.fused.float_bits import bits_of, bits_of_single, from_bits
from driftscope_probes.mismatch.fused.layouts import SHIFT, Buckets, Scratch
from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.mismatch.terms import (
    CHI_SQUARE_BOUND,
    CONFIDENT_ABOVE,
    DISAGREES_BELOW,
    EXTREME_DIFF,
    NARROW_BAND,
    PPO_BAND,
    WIDE_BAND,
)


@inlined
def fine_bucket(value: float) -> int:
    """One bit pattern down, so that a number on an edge lies in the bucket below the edge."""
    return ((bits_of(value) - 1) >> SHIFT) + 1


SIGN_MASK = 0x7FFFFFFF  # all but the sign of IEEE 754 binary32

# No token of a block counts anywhere as long as every |Δ| stays below the narrowest band.
NOTHING_COUNTS_BELOW = 0.99 * min(math.log(NARROW_BAND[1]), -math.log(NARROW_BAND[0]))


@inlined
def single_rank(value: float) -> float:
    """Place among the float32 numbers, 0 for both zeros; beyond the largest: the one after it."""
    bits = bits_of_single(np.float32(value))
    rank = np.float64(bits & SIGN_MASK)
    return -rank if bits < 0 else rank


@inlined
def ulp_distance(rollout: float, trainer: float) -> float:
    return abs(single_rank(trainer) - single_rank(rollout))


@summing
def place_tokens(
    scratch: Scratch, tokens: int, buckets: Buckets, extremes: Any
) -> tuple[float, int]:
    """Largest |Δ| of the block, and how many of its tokens are close."""
    rollouts, trainers = scratch.rollout, scratch.trainer
    diff_buckets, ulp_buckets = buckets[0], buckets[1]
    size_top, ulp_top, close = 0, 0, 0
    for i in range(tokens):
        size = abs(less(trainers[i], rollouts[i]))
        distance = ulp_distance(rollouts[i], trainers[i])
        diff_buckets[i] = fine_bucket(size)
        ulp_buckets[i] = fine_bucket(distance)
        close += is_close(rollouts[i], trainers[i])
        size_top = max(size_top, bits_of(size))
        ulp_top = max(ulp_top, bits_of(distance))
    extremes.abs_diff_max = max(extremes.abs_diff_max, size_top)
    extremes.ulp_distance_max = max(extremes.ulp_distance_max, ulp_top)
    return from_bits(size_top), close


@compiled
def add_to_histograms(
    buckets: Buckets, tokens: int, diff_histogram: IntArray, ulp_histogram: IntArray
) -> None:
    for i in range(tokens):
        diff_histogram[buckets[0, i]] += 1
        ulp_histogram[buckets[1, i]] += 1


@summing
def add_close_counts(scratch: Scratch, tokens: int, counts: Any) -> None:
    """As add_threshold_counts(), of close tokens, which are within the other thresholds."""
    ratios = scratch.ratio
    narrow = ppo = 0
    for i in range(tokens):
        ratio = ratios[i]
        narrow += (ratio < NARROW_BAND[0]) | (ratio > NARROW_BAND[1])
        ppo += (ratio < PPO_BAND[0]) | (ratio > PPO_BAND[1])
    counts.ratio_outside_narrow += narrow
    counts.ratio_outside_ppo += ppo


@summing
def add_threshold_counts(scratch: Scratch, start: int, tokens: int, counts: Any) -> None:
    """Of the tokens from start on. Bands are closed: a ratio on the edge is inside.

    counts: a row of COUNTS.
    """
    rollouts, ratios, trainers = scratch.rollout, scratch.ratio, scratch.trainer
    above = below = narrow = ppo = extreme = confident = saturated = 0
    for i in range(start, tokens):
        diff, ratio = less(trainers[i], rollouts[i]), ratios[i]
        size = abs(diff)
        above += ratio > WIDE_BAND[1]
        below += ratio < WIDE_BAND[0]
        narrow += (ratio < NARROW_BAND[0]) | (ratio > NARROW_BAND[1])
        ppo += (ratio < PPO_BAND[0]) | (ratio > PPO_BAND[1])
        extreme += size > EXTREME_DIFF
        confident += (rollouts[i] > CONFIDENT_ABOVE) & (diff < DISAGREES_BELOW)
        saturated += size > CHI_SQUARE_BOUND
    counts.ratio_above_wide += above
    counts.ratio_below_wide += below
    counts.ratio_outside_narrow += narrow
    counts.ratio_outside_ppo += ppo
    counts.extreme_diff += extreme
    counts.confident_disagreements += confident
    counts.chi2_saturated += saturated
