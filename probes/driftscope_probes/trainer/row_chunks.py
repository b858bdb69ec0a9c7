"""How rows of hidden states are cut into chunks for the language-model head.

In: number of rows, dtype of the matrix product. Out: slices that cover the rows in order.
"""

from __future__ import annotations

import torch

#: Rows per chunk, by the dtype of the matrix product. A chunk costs rows × vocabulary × 4 bytes in
#: float32, × 6 in a 16-bit dtype (its logits and their float32 copy). MKL packs the whole weight
#: anew at every float32 call, so that few rows are slow (64 rows: 1.16 times the whole batch's
#: time, 128 rows: 0.94, 160 rows: 0.91); oneDNN's 16-bit kernels gain little beyond 96.
FLOAT32_CHUNK_ROWS = 160
HALF_CHUNK_ROWS = 96
#: From here on a row's float32 product does not depend on how many rows are around it. Below, MKL
#: takes other kernels, with another order of summation, for remainders of up to three rows: seen
#: up to 3 rows with one thread, 11 with two, 27 with sixteen on AMD's CPUs; on Intel's up to 15
#: with one thread, and with two, or in bfloat16 with AMX, hundreds, which no chunk size avoids.
INVARIANT_ROWS = 32
#: Chunks are of nearly equal size, so that none is smaller than half of what was asked for.
MIN_CHUNK_ROWS = 2 * INVARIANT_ROWS


def default_chunk_rows(dtype: torch.dtype) -> int:
    return FLOAT32_CHUNK_ROWS if dtype == torch.float32 else HALF_CHUNK_ROWS


def row_chunks(rows: int, chunk_rows: int) -> list[slice]:
    """Cut `rows` into the fewest chunks of at most `chunk_rows`, all of nearly the same size.

    Never a small remainder: it would take another kernel and other bits than the same rows have
    inside a large product. Raises ValueError below MIN_CHUNK_ROWS.
    """
    if chunk_rows < MIN_CHUNK_ROWS:
        raise ValueError(
            f"chunk_rows is {chunk_rows}; give at least {MIN_CHUNK_ROWS}: smaller matrix products "
            "are summed in another order and lose bitwise equality."
        )
    count = -(-rows // chunk_rows)
    edges = [rows * index // count for index in range(count)] + [rows] if count else []
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
