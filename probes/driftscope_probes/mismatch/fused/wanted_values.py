"""The compiled loop of the second read; what Python calls is gather().

In: the given arrays and the wanted buckets. Out: the values that lie in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.fused.block_counts import fine_bucket, ulp_distance
from driftscope_probes.mismatch.fused.block_loading import load_any
from driftscope_probes.mismatch.fused.block_sums import less
from driftscope_probes.mismatch.fused.compiled import (
    SOURCES,
    compiled,
    kept_on_disk,
    summing,
)
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.layouts import (
    BITS_OF_INFINITY,
    BLOCK,
    MARKS_IN_GROUP,
    Buckets,
    MarkGroups,
    Marks,
    Scratch,
    Wanted,
)
from driftscope_probes.mismatch.number import BoolArray, FloatArray, LogprobArray


@summing
def place_given(
    rollout: LogprobArray, trainer: LogprobArray, scratch: Scratch, buckets: Buckets
) -> bool:
    """Values and buckets of a block as given; False where a Δ is not finite."""
    sizes, distances = scratch.abs_diff, scratch.ulp_distance
    diff_buckets, ulp_buckets = buckets[0], buckets[1]
    top = 0
    for i in range(rollout.size):
        first, second = np.float64(rollout[i]), np.float64(trainer[i])
        size = abs(less(second, first))
        distance = ulp_distance(first, second)
        sizes[i], distances[i] = size, distance
        diff_buckets[i] = fine_bucket(size)
        ulp_buckets[i] = fine_bucket(distance)
        top = max(top, bits_of(size))
    return top < BITS_OF_INFINITY


@compiled
def mark_wanted(buckets: Any, tokens: int, wanted: Wanted, marks: Marks) -> None:
    """buckets: of one kind. One wanted bucket at a time, and so many tokens at once."""
    for bucket in wanted:
        for i in range(tokens):
            marks[i] |= buckets[i] == bucket


@compiled
def is_wanted(bucket: int, wanted: Wanted) -> bool:
    for other in wanted:
        if bucket == other:
            return True
    return False


@compiled
def keep_marked(
    scratch: Scratch,
    buckets: Buckets,
    wanted: tuple[Wanted, Wanted],
    marks: tuple[Marks, MarkGroups],
    kept: tuple[FloatArray, FloatArray],
    found: tuple[int, int],
) -> tuple[int, int]:
    """How many |Δ| and ULP distances are kept then, of `found` before."""
    diffs, ulps = found
    for group in range(marks[1].size):
        if marks[1][group] == 0:
            continue
        for i in range(group * MARKS_IN_GROUP, (group + 1) * MARKS_IN_GROUP):
            if marks[0][i] and is_wanted(buckets[0, i], wanted[0]):
                kept[0][diffs] = scratch.abs_diff[i]
                diffs += 1
            if marks[0][i] and is_wanted(buckets[1, i], wanted[1]):
                kept[1][ulps] = scratch.ulp_distance[i]
                ulps += 1
    return diffs, ulps


def _entry(sources: int) -> Callable[..., int]:
    @kept_on_disk
    def gather(
        rollout: LogprobArray,
        trainer: LogprobArray,
        mask: BoolArray,
        wanted: tuple[Wanted, Wanted],
        kept: tuple[FloatArray, FloatArray],
        scratch: Scratch,
        buckets: Buckets,
        marks: tuple[Marks, MarkGroups],
        oddities: NDArray[Any],
    ) -> int:
        found = (0, 0)
        for start in range(0, rollout.size, BLOCK):
            tokens = min(BLOCK, rollout.size - start)
            first, second = rollout[start : start + tokens], trainer[start : start + tokens]
            if mask.size > 0 or not place_given(first, second, scratch, buckets):
                tokens = load_any(rollout, trainer, mask, start, tokens, scratch, 0, oddities[0])
                place_given(scratch.rollout[:tokens], scratch.trainer[:tokens], scratch, buckets)
            marks[1][:] = 0
            mark_wanted(buckets[0], tokens, wanted[0], marks[0])
            mark_wanted(buckets[1], tokens, wanted[1], marks[0])
            found = keep_marked(scratch, buckets, wanted, marks, kept, found)
        return sources

    return gather


gather = _entry(SOURCES)
