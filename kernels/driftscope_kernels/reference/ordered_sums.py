"""Sums in a fixed order.

Along a row: in 16 strided lanes, merged by halves. Over the rows of a batch: in blocks of 64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftscope_kernels.options import LANES, ROW_BLOCK
from driftscope_kernels.reference.fma import Float32, fma


@np.errstate(all="ignore")
def lane_sum(x: Float32) -> Float32:
    """Σ x: lane j adds elements j, j+16, j+32, … in this order to +0; then `merge_lanes`."""
    total = np.zeros((len(x), LANES), np.float32)
    for chunk in _chunks(x):
        total = total + chunk
    return merge_lanes(total)


@np.errstate(all="ignore")
def lane_dot(x: Float32, y: Float32) -> Float32:
    """Σ x·y: as `lane_sum`, each step one fma(x, y, lane)."""
    total = np.zeros((len(x), LANES), np.float32)
    for a, b in zip(_chunks(x), _chunks(y), strict=True):
        total = fma(a, b, total)
    return merge_lanes(total)


def merge_lanes(total: Float32) -> Float32:
    """Lane i + lane i+8 for i < 8, then i + (i+4), i + (i+2), i + (i+1)."""
    while (half := total.shape[1] // 2) > 0:
        total = total[:, :half] + total[:, half:]
    merged: Float32 = total[:, 0]
    return merged


def row_max(x: Float32) -> Float32:
    """Largest element of each row, −∞ of an empty row, NaN if there is one: order plays no part."""
    largest: Float32 = np.max(x, axis=1, initial=np.float32(-np.inf))
    return largest


def _chunks(x: Float32) -> list[Float32]:
    """Columns in groups of 16, an incomplete last one padded with +0."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % LANES)))
    return [padded[:, i : i + LANES] for i in range(0, padded.shape[1], LANES)]


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
