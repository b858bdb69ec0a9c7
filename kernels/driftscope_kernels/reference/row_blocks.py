"""Sums over the rows of a batch, for weight gradients: blocks of 64 rows, added up in order.

In: what a block of rows contributes, and what earlier rows came to. Out: float32. A batch that is
cut at multiples of ROW_BLOCK rows, each part carried into the next, gives the bits of the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.reference.fma import Float32, fma


@np.errstate(all="ignore")
def fold(
    rows: int,
    block: Callable[[slice], Float32],
    shape: tuple[int, ...],
    carry: Float32 | None,
) -> Float32:
    """((carry + b₀) + b₁) + …, carry +0 if none is given; each b is summed from +0 on its own."""
    total = np.zeros(shape, np.float32) if carry is None else carry
    for start in range(0, rows, ROW_BLOCK):
        total = total + block(slice(start, min(start + ROW_BLOCK, rows)))
    return total


def column_dot(x: Float32, y: Float32) -> Float32:
    """Σ over rows of x·y for each column: one fma per row, in order, from +0."""
    total = np.zeros(x.shape[1], np.float32)
    for a, b in zip(x, y, strict=True):
        total = fma(a, b, total)
    return total


@np.errstate(all="ignore")
def column_sum(x: Float32) -> Float32:
    """Σ over rows of x for each column, in order, from +0."""
    total = np.zeros(x.shape[1], np.float32)
    for row in x:
        total = total + row
    return total
