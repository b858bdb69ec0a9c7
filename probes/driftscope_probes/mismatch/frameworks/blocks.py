"""A batch block by block: every block once, by two threads where that pays; sums as np.sum's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import numpy as np

from driftscope_probes.mismatch.number import FloatArray, IntArray

Block = TypeVar("Block")

# Values: some twenty arrays of so many stay in a cache.
LONGEST_BLOCK = 1 << 15

# Below it, starting a thread takes longer than what it saves.
TWO_THREADS_FROM = 1 << 18  # tokens


def of_each_block(
    work: Callable[[Block], FloatArray], blocks: Sequence[Block], tokens: int
) -> FloatArray:
    """[blocks, …] what work gives for each, in order, so that threads change no bit of a sum.

    A process analyses one push at a time, and its answer waits for the analysis: a second core
    halves that wait, while more would be taken from the trainer or from other processes.
    """
    results: list[FloatArray] = [np.zeros(0)] * len(blocks)
    left = iter(range(len(blocks)))

    def take_blocks() -> None:
        for index in left:
            results[index] = work(blocks[index])

    if tokens < TWO_THREADS_FROM:
        take_blocks()
    else:
        with ThreadPoolExecutor(1) as pool:  # in this context, as np.errstate belongs to one
            other = pool.submit(copy_context().run, take_blocks)
            take_blocks()
            other.result()
    return np.stack(results)


def block_limits(count: int) -> IntArray:
    """Limits of blocks of at most LONGEST_BLOCK values, where np.sum splits an array of that size.

    np.sum adds in pairs: it halves an array, the first half a multiple of 8, down to 128 values.
    """
    sizes = np.array([count])
    while sizes.max() > LONGEST_BLOCK:
        first = sizes // 16 * 8
        sizes = np.stack([first, sizes - first], axis=1).ravel()
    return np.concatenate([[0], np.cumsum(sizes)])


def token_blocks(count: int) -> list[slice]:
    limits = block_limits(count).tolist()
    return list(map(slice, limits, limits[1:]))


def added(sums: FloatArray) -> FloatArray:
    """[rows] np.sum of each row [rows, count], to the last bit, from [token_blocks, rows]."""
    while len(sums) > 1:
        sums = sums[::2] + sums[1::2]
    return sums[0]


def block_sums(count: int, of_block: Callable[[slice], FloatArray]) -> FloatArray:
    """[rows] sums of each row [rows, count], from what of_block gives for each block."""
    return added(of_each_block(of_block, token_blocks(count), count))
