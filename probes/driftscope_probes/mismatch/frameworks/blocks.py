"""A batch block by block: every block once, by two threads where that pays; sums as np.sum's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import numpy as np

from driftscope_probes.mismatch.number import FloatArray

A = TypeVar("A")
B = TypeVar("B")

# Values: some twenty arrays of this length stay in a cache.
LONGEST_BLOCK = 1 << 15

# Below it, a second thread saves less than it costs: both wait for the interpreter's lock.
TWO_THREADS_FROM = 1 << 20  # tokens


def in_two_threads(first: Callable[[], A], second: Callable[[], B], tokens: int) -> tuple[A, B]:
    """What both give, the first in a thread of its own where the batch is large.

    A process analyses one push at a time, and its answer waits for that: a second core about
    halves the wait, while all of them would be missing elsewhere. No bit depends on it.
    """
    if tokens < TWO_THREADS_FROM:
        return first(), second()
    with ThreadPoolExecutor(1) as pool:
        of_first = pool.submit(copy_context().run, first)  # np.errstate belongs to a context
        of_second = second()
        return of_first.result(), of_second


def of_each_block(work: Callable[[B], FloatArray], blocks: Sequence[B], tokens: int) -> FloatArray:
    """[blocks, …] what work gives for each block, in their order."""
    results: list[FloatArray] = [np.zeros(0)] * len(blocks)
    left = deque(range(len(blocks)))

    def work_on(take: Callable[[], int]) -> None:
        while True:
            try:
                index = take()
            except IndexError:
                return
            results[index] = work(blocks[index])

    # From both ends, so that the threads do not write to the same pages of memory.
    in_two_threads(lambda: work_on(left.popleft), lambda: work_on(left.pop), tokens)
    return np.stack(results)


def token_blocks(count: int) -> list[slice]:
    """Blocks of at most LONGEST_BLOCK values, where np.sum splits an array of that size.

    np.sum adds in pairs: it halves an array, the first half a multiple of 8, down to 128 values.
    """
    sizes = np.array([count])
    while sizes.max() > LONGEST_BLOCK:
        first = sizes // 16 * 8
        sizes = np.stack([first, sizes - first], axis=1).ravel()
    limits = [0, *np.cumsum(sizes).tolist()]
    return list(map(slice, limits, limits[1:]))


def added(sums: FloatArray) -> FloatArray:
    """[rows] np.sum of each row [rows, count], to the last bit, from [token_blocks, rows]."""
    while len(sums) > 1:
        sums = sums[::2] + sums[1::2]
    total: FloatArray = sums[0]
    return total


def block_sums(count: int, of_block: Callable[[slice], FloatArray]) -> FloatArray:
    """[rows] sums of each row [rows, count], from what of_block gives for each block."""
    return added(of_each_block(of_block, token_blocks(count), count))
