"""Applies a per-token function block by block, so that its intermediate arrays stay in the cache.

In: arrays [tokens] and a function that gives one value per token. Out: those values [tokens].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray

# 128 KiB per float64 array: a handful of intermediates fits a second-level cache of 1 MiB.
BLOCK_TOKENS = 1 << 14


def by_blocks(terms: Callable[..., FloatArray], *arrays: FloatArray) -> FloatArray:
    """Bit for bit what terms(*arrays) gives, as each value depends on its own token alone."""
    result = np.empty(arrays[0].size)
    for start in range(0, result.size, BLOCK_TOKENS):
        block = slice(start, start + BLOCK_TOKENS)
        result[block] = terms(*(array[block] for array in arrays))
    return result
