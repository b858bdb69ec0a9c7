"""Sums over the rows of a batch in blocks of 64, for the gradients of a bias and a norm weight.

In: dy [M, K] (and for a norm what the weight met). Out: float32 [K]: as
`driftscope_kernels.reference.arithmetic`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.triton_kernels.arithmetic import load, rounded, through
from driftscope_kernels.triton_kernels.launch import aligned, launch, programs

COLUMNS = 128  # per program


def column_sums(dy: Tensor, carry: Tensor | None) -> Tensor:
    """Σ_m dy[m, k]: float32 [K]."""
    return _folded(dy, dy, dy, carry, {"SCALED": False, "ROUND_UNIT": False})


def column_dots(
    dy: Tensor, x: Tensor, scale: Tensor, carry: Tensor | None, *, round_unit: bool
) -> Tensor:
    """Σ_m dy[m, k]·(x[m, k]·scale[m]): float32 [K].

    `round_unit`: the factor in brackets is rounded to the dtype of dy.
    """
    return _folded(dy, x, scale, carry, {"SCALED": True, "ROUND_UNIT": round_unit})


def _folded(
    dy: Tensor, x: Tensor, scale: Tensor, carry: Tensor | None, constants: dict[str, bool]
) -> Tensor:
    rows, n = dy.shape
    blocks = programs(rows, ROW_BLOCK)
    sums = dy.new_empty((blocks, n), dtype=torch.float32)
    out = dy.new_empty(n, dtype=torch.float32)
    grid = (programs(n, COLUMNS), blocks)
    sizes = {"rows": rows, "n": n, **constants, "COLUMNS": COLUMNS, "ROW_BLOCK": ROW_BLOCK}
    tensors = {"dy_ptr": dy, "x_ptr": x, "scale_ptr": scale, "sums_ptr": sums}
    launch(block_sums_kernel, grid, {**tensors, **sizes})
    start = out if carry is None else aligned(carry)
    folded = {"sums_ptr": sums, "carry_ptr": start, "out_ptr": out, "blocks": blocks, "n": n}
    constants = {"HAS_CARRY": carry is not None}
    launch(fold_kernel, grid[:1], {**folded, **constants, "COLUMNS": COLUMNS})
    return out


@triton.jit(do_not_specialize=["rows"])
def block_sums_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    sums_ptr,
    rows,
    n,
    SCALED: tl.constexpr,
    ROUND_UNIT: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROW_BLOCK: tl.constexpr,
):
    block = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < n
    total = tl.zeros((COLUMNS,), tl.float32)
    for i in range(0, ROW_BLOCK):
        row = block * ROW_BLOCK + i
        here = column < tl.where(row < rows, n, 0)
        dy = load(dy_ptr + row * n + column, here)
        if SCALED:
            scale = tl.load(scale_ptr + row, mask=row < rows, other=0.0)
            unit = load(x_ptr + row * n + column, here) * scale
            if ROUND_UNIT:
                unit = through(unit, dy_ptr.dtype.element_ty)
            # A row that is not there adds nothing, not even +0 to a −0.
            total = tl.where(here, tl.fma(dy, unit, total), total)
        else:
            total = tl.where(here, total + dy, total)
    tl.store(sums_ptr + block * n + column, total, mask=inside)


@triton.jit(do_not_specialize=["blocks"])
def fold_kernel(
    sums_ptr, carry_ptr, out_ptr, blocks, n, HAS_CARRY: tl.constexpr, COLUMNS: tl.constexpr
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < n
    total = tl.zeros((COLUMNS,), tl.float32)
    if HAS_CARRY:
        total = tl.load(carry_ptr + column, mask=inside, other=0.0)
    for block in range(0, blocks):
        total += tl.load(sums_ptr + block * n + column, mask=inside, other=0.0)
    tl.store(out_ptr + column, rounded(total, tl.float32), mask=inside)
