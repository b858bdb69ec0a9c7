"""One persistent matrix product behind linear, bmm, their gradients and the lm_head.

In: x [B, rows, K] and w [B, columns, K] by strides, float32 carry or none. Out: [B, rows, columns].
The sum along K goes in blocks of fixed length from the first element on; it is never split.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.triton_kernels.arithmetic import dot_added, fma_flushing, load, rounded
from driftscope_kernels.triton_kernels.launch import interpreting, launch, programs

# "tensor_cores": tl.dot; order and rounding within a block of K are the hardware's.
# "in_order": one fma per element, k ascending: the bits of the reference, and slow.
Dot = Literal["tensor_cores", "in_order"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One configuration per dtype, whatever the number of rows."""

    rows: int
    columns: int
    k: int
    warps: int
    stages: int


# Shared memory of the 16-bit tile: 3 stages of (64 + 128)·64·2 bytes = 72 KiB, below the 99 KiB of
# the smallest target; of the float32 tile: 3·(64 + 64)·16·4 = 24 KiB.
TILES = {
    torch.float32: Tile(64, 64, 16, 8, 3),
    torch.bfloat16: Tile(64, 128, 64, 8, 3),
    torch.float16: Tile(64, 128, 64, 8, 3),
}
IN_ORDER_TILE = Tile(32, 32, 64, 4, 1)
# Programs of a persistent launch: no fewer than the compute units of any device targeted.
PERSISTENT_PROGRAMS = 304


@dataclass(frozen=True, slots=True)
class Operand:
    """A matrix [rows, K] somewhere in a tensor: strides in elements."""

    tensor: Tensor
    row_stride: int
    k_stride: int


def matmul(
    x: Operand,
    w: Operand,
    out: Tensor,
    *,
    rows: int,
    columns: int,
    k: tuple[int, int],
    batch: int = 1,
    w_batch: int = 0,
    initial: Tensor | None = None,
    bias: Tensor | None = None,
    fold: bool = False,
    dot: Dot = "tensor_cores",
) -> None:
    """out[b, m, n] = initial + Σ_k x[b, m, k]·w[b, n, k] + bias[n] over k[0] ≤ k < k[1].

    With a batch, x[b] follows x[b − 1] at once and w[b] lies `w_batch` elements after w[b − 1].
    `fold`: K goes in blocks of ROW_BLOCK, each from +0, added up in order. `out` is contiguous.
    """
    dtype = x.tensor.dtype
    tile = IN_ORDER_TILE if dot == "in_order" else TILES[dtype]
    tiles = programs(rows, tile.rows) * programs(columns, tile.columns)
    arguments = {
        **{"x_ptr": x.tensor, "w_ptr": w.tensor, "out_ptr": out},
        "initial_ptr": out if initial is None else initial,
        "bias_ptr": out if bias is None else bias,
        **{"rows": rows, "columns": columns, "k_start": k[0]},
        # Two arguments for one thing: where the sum goes over rows of a batch, binaries may not
        # differ by its length; where it goes along a weight, they may, and loads are wider for it.
        **{"k_end": 0 if fold else k[1], "rows_summed": k[1] if fold else 0},
        **{"x_row": x.row_stride, "x_k": x.k_stride},
        **{"w_row": w.row_stride, "w_k": w.k_stride, "w_batch": w_batch, "BATCHED": w_batch > 0},
        **{"HAS_INITIAL": initial is not None, "HAS_BIAS": bias is not None, "FOLD": fold},
        # A beginning that is known to be 0 lets the loads along K be vectors.
        **{"FROM_ZERO": k[0] == 0, "IN_ORDER": dot == "in_order"},
        # The interpreter's tl.dot multiplies the bits of bfloat16 numbers; float32 holds them all.
        "WIDEN": interpreting() or w.tensor.dtype != dtype,
        **{"BLOCK_ROWS": tile.rows, "BLOCK_COLUMNS": tile.columns},
        **{"BLOCK_K": tile.k, "ROW_BLOCK": ROW_BLOCK},
    }
    grid = (min(tiles, PERSISTENT_PROGRAMS), batch)
    launch(matmul_kernel, grid, arguments, num_warps=tile.warps, num_stages=tile.stages)


@triton.jit
def _in_order(
    x_ptr, w_ptr, x_k, w_k, start, end, live_row, live_column, total, PAIRS: tl.constexpr
):
    """The chain of the reference from start to end; bfloat16 in pairs, the odd element first."""
    if PAIRS:
        for k in range(start, end, 2):
            # An odd number of elements is padded with +0 · +0, first in its pair.
            there = k + 1 < end + tl.zeros((1, 1), tl.int32)
            odd = load(x_ptr + (k + 1) * x_k, live_row & there)
            total = fma_flushing(odd, load(w_ptr + (k + 1) * w_k, live_column & there), total)
            even = load(x_ptr + k * x_k, live_row)
            total = fma_flushing(even, load(w_ptr + k * w_k, live_column), total)
    else:
        for k in range(start, end):
            x = load(x_ptr + k * x_k, live_row)
            total = tl.fma(x, load(w_ptr + k * w_k, live_column), total)
    return total


@triton.jit
def _in_blocks(
    x_ptr,
    w_ptr,
    x_k,
    w_k,
    start,
    end,
    live_row,
    live_column,
    total,
    WIDEN: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """total + the product from start to end by tl.dot, in full float32 where it is float32."""
    for first in range(start, end, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        there = k < end
        x = tl.load(x_ptr + k[None, :] * x_k, mask=live_row & there[None, :], other=0.0)
        w = tl.load(w_ptr + k[:, None] * w_k, mask=live_column & there[:, None], other=0.0)
        total = dot_added(x, w, total, WIDEN)
    return total


@triton.jit
def _chain(
    x_ptr,
    w_ptr,
    x_k,
    w_k,
    start,
    end,
    live_row,
    live_column,
    total,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    if IN_ORDER:
        pairs: tl.constexpr = x_ptr.dtype.element_ty == tl.bfloat16
        return _in_order(x_ptr, w_ptr, x_k, w_k, start, end, live_row, live_column, total, pairs)
    else:
        return _in_blocks(
            x_ptr, w_ptr, x_k, w_k, start, end, live_row, live_column, total, WIDEN, BLOCK_K
        )


@triton.jit(do_not_specialize=["rows", "k_start", "rows_summed"])
def matmul_kernel(
    x_ptr,
    w_ptr,
    out_ptr,
    initial_ptr,
    bias_ptr,
    rows,
    columns,
    k_start,
    k_end,
    rows_summed,
    x_row,
    x_k,
    w_row,
    w_k,
    w_batch,
    BATCHED: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    FROM_ZERO: tl.constexpr,
    FOLD: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    ROW_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    begin = 0 if FROM_ZERO else k_start
    tiles_across = tl.cdiv(columns, BLOCK_COLUMNS)
    tiles = tl.cdiv(rows, BLOCK_ROWS) * tiles_across
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile // tiles_across).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
        column = (tile % tiles_across).to(tl.int64) * BLOCK_COLUMNS
        column = column + tl.arange(0, BLOCK_COLUMNS)[None, :]
        live_row = row < rows
        live_column = column < columns
        inside = live_row & live_column
        offset = (batch * rows + row) * columns + column
        x_at = x_ptr + row * x_row
        w_at = w_ptr + column * w_row
        if BATCHED:
            x_at += batch * rows * x_row
            w_at += batch * w_batch
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        if HAS_INITIAL:
            total = tl.load(initial_ptr + offset, mask=inside, other=0.0)
        if FOLD:
            for start in range(0, rows_summed, ROW_BLOCK):
                end = tl.minimum(start + ROW_BLOCK, rows_summed)
                nothing = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
                total = total + _chain(
                    *(x_at, w_at, x_k, w_k, start, end, live_row, live_column),
                    *(nothing, IN_ORDER, WIDEN, BLOCK_K),
                )
        else:
            total = _chain(
                *(x_at, w_at, x_k, w_k, begin, k_end, live_row, live_column),
                *(total, IN_ORDER, WIDEN, BLOCK_K),
            )
        if HAS_BIAS:
            total += load(bias_ptr + column, live_column)
        tl.store(out_ptr + offset, rounded(total, out_ptr.dtype.element_ty), mask=inside)
