"""The second, light read of the tokens: collects what lies in the buckets that hold a quantile.

In: PairedLogprobs and the buckets wanted. Out: the |Δ| and the ULP distances that lie in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.arrays import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.fused.block_counts import place_tokens, ulp_distance
from driftscope_probes.mismatch.fused.block_loading import ODDITIES, load_any
from driftscope_probes.mismatch.fused.block_sums import (
    BITS_OF_INFINITY,
    BLOCK,
    EXTREMES,
    Scratch,
    less,
    new_scratch,
)
from driftscope_probes.mismatch.fused.compiled import compiled, kept_on_disk, summing
from driftscope_probes.mismatch.fused.fine_buckets import fine_bucket
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.token_pass import as_compiled
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs

Wanted = NDArray[np.uint8]  # [BUCKETS], 1 where the bucket is wanted


def gathered(
    pair: PairedLogprobs, wanted: tuple[Wanted, Wanted], sizes: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """|Δ| and ULP distances in the wanted buckets of each, which hold `sizes` of them."""
    # One place more: every value is written, and the next one written over it if not wanted.
    found = np.empty(sizes[0] + 1), np.empty(sizes[1] + 1)
    _gather(
        *as_compiled(pair),
        wanted,
        found,
        new_scratch(),
        np.zeros((2, BLOCK), np.int64),
        np.zeros(1, ODDITIES),
        np.zeros(1, EXTREMES),
    )
    return found[0][:-1], found[1][:-1]


@summing
def _place_given(
    rollout: LogprobArray,
    trainer: LogprobArray,
    start: int,
    tokens: int,
    scratch: Scratch,
    buckets: IntArray,
) -> bool:
    """As load_plain and place_tokens without their counts; False where a Δ is not finite."""
    sizes, distances = scratch.abs_diff, scratch.ulp_distance
    diff_buckets, ulp_buckets = buckets[0], buckets[1]
    top = 0
    for i in range(tokens):
        first, second = np.float64(rollout[start + i]), np.float64(trainer[start + i])
        size = abs(less(second, first))
        distance = ulp_distance(first, second)
        sizes[i], distances[i] = size, distance
        diff_buckets[i] = fine_bucket(size)
        ulp_buckets[i] = fine_bucket(distance)
        top = max(top, bits_of(size))
    return top < BITS_OF_INFINITY


@compiled
def _keep_wanted(
    values: FloatArray, buckets: IntArray, tokens: int, wanted: Wanted, kept: FloatArray, place: int
) -> int:
    """Without a branch, which would be mispredicted at nearly every wanted token."""
    for i in range(tokens):
        kept[place] = values[i]
        place += wanted[buckets[i]]
    return place


@kept_on_disk
def _gather(
    rollout: LogprobArray,
    trainer: LogprobArray,
    mask: BoolArray,
    wanted: tuple[Wanted, Wanted],
    kept: tuple[FloatArray, FloatArray],
    scratch: Scratch,
    buckets: IntArray,
    oddities: NDArray[Any],
    extremes: NDArray[Any],
) -> None:
    diffs = ulps = 0
    for start in range(0, rollout.size, BLOCK):
        tokens = min(BLOCK, rollout.size - start)
        if mask.size > 0 or not _place_given(rollout, trainer, start, tokens, scratch, buckets):
            tokens = load_any(rollout, trainer, mask, start, tokens, scratch, 0, oddities[0])
            place_tokens(scratch, tokens, buckets, extremes[0])
        diffs = _keep_wanted(scratch.abs_diff, buckets[0], tokens, wanted[0], kept[0], diffs)
        ulps = _keep_wanted(scratch.ulp_distance, buckets[1], tokens, wanted[1], kept[1], ulps)
