"""softmax, log_softmax, logsumexp and their gradients as Triton kernels.

In: x, any shape and stride. Out: as `driftscope_kernels.reference.softmax`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.triton_kernels.arithmetic import (
    INFINITY,
    LANES,
    divided,
    exp,
    load,
    log,
    merge_lanes,
    merge_largest,
    rounded,
)
from driftscope_kernels.triton_kernels.launch import ROWS, as_rows, back, launch, programs

SOFTMAX = tl.constexpr(0)
LOG_SOFTMAX = tl.constexpr(1)
LOGSUMEXP = tl.constexpr(2)


def softmax(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """As `reference.softmax.softmax`."""
    return back(_forward(x, dim, out_dtype, SOFTMAX), x, dim)


def log_softmax(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """As `reference.softmax.log_softmax`."""
    return back(_forward(x, dim, out_dtype, LOG_SOFTMAX), x, dim)


def logsumexp(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """As `reference.softmax.logsumexp`."""
    return _forward(x, dim, out_dtype, LOGSUMEXP).reshape(x.movedim(dim, -1).shape[:-1])


def softmax_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """As `reference.softmax.softmax_backward`."""
    return _backward(as_rows(dy, dim), x, dim, SOFTMAX)


def log_softmax_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """As `reference.softmax.log_softmax_backward`."""
    return _backward(as_rows(dy, dim), x, dim, LOG_SOFTMAX)


def logsumexp_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """As `reference.softmax.logsumexp_backward`; dy without the dimension."""
    return _backward(as_rows(dy.reshape(-1, 1)), x, dim, LOGSUMEXP)


def _forward(x: Tensor, dim: int, out_dtype: torch.dtype | None, kind: tl.constexpr) -> Tensor:
    rows = as_rows(x, dim)
    shape = rows.shape[:1] if kind == LOGSUMEXP else rows.shape
    out = rows.new_empty(shape, dtype=out_dtype or x.dtype)
    arguments = {"x_ptr": rows, "out_ptr": out, "rows": len(rows), "n": rows.shape[1]}
    grid = (programs(len(rows), ROWS),)
    launch(softmax_kernel, grid, {**arguments, "KIND": kind.value, "ROWS": ROWS})
    return out


def _backward(dy: Tensor, x: Tensor, dim: int, kind: tl.constexpr) -> Tensor:
    rows = as_rows(x, dim)
    out = torch.empty_like(rows)
    sizes = {"rows": len(rows), "n": rows.shape[1]}
    arguments = {"dy_ptr": dy, "x_ptr": rows, "out_ptr": out, **sizes}
    grid = (programs(len(rows), ROWS),)
    launch(softmax_backward_kernel, grid, {**arguments, "KIND": kind.value, "ROWS": ROWS})
    return back(out, x, dim)


@triton.jit
def row_largest(x_ptr, base, live, n, ROWS: tl.constexpr):
    """Largest element of each row [ROWS, 1]."""
    lane = tl.arange(0, LANES)[None, :]
    largest = tl.full((ROWS, LANES), -INFINITY, tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        x = tl.where(inside, load(x_ptr + base + start + lane, inside), -INFINITY)
        largest = tl.maximum(largest, x, tl.PropagateNan.ALL)
    return merge_largest(largest, ROWS)


@triton.jit
def row_total(x_ptr, base, live, n, largest, ROWS: tl.constexpr):
    """Σ exp(x − largest) of each row [ROWS, 1], by lanes."""
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        x = load(x_ptr + base + start + lane, inside)
        total += tl.where(inside, exp(x - largest), 0.0)
    return merge_lanes(total, ROWS)


@triton.jit
def program_rows(rows, ROWS: tl.constexpr):
    """The rows of this program [ROWS, 1], 64-bit, and which of them exist."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    return row, row < rows


@triton.jit(do_not_specialize=["rows"])
def softmax_kernel(x_ptr, out_ptr, rows, n, KIND: tl.constexpr, ROWS: tl.constexpr):
    row, live = program_rows(rows, ROWS)
    base = row * n
    largest = row_largest(x_ptr, base, live, n, ROWS)
    total = row_total(x_ptr, base, live, n, largest, ROWS)
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    if KIND == LOGSUMEXP:
        infinite = tl.abs(largest) == INFINITY
        result = tl.where(infinite, largest, largest + log(total))
        tl.store(out_ptr + row, rounded(result, dtype), mask=live)
    else:
        lane = tl.arange(0, LANES)[None, :]
        if KIND == SOFTMAX:
            of_row = divided(tl.full((ROWS, 1), 1.0, tl.float32), total)
        else:
            of_row = log(total)
        for start in range(0, n, LANES):
            inside = live & (start + lane < n)
            below = load(x_ptr + base + start + lane, inside) - largest
            if KIND == SOFTMAX:
                y = exp(below) * of_row
            else:
                y = below - of_row
            tl.store(out_ptr + base + start + lane, rounded(y, dtype), mask=inside)


@triton.jit
def row_projection(
    dy_ptr, x_ptr, base, live, n, largest, of_row, KIND: tl.constexpr, ROWS: tl.constexpr
):
    """Σ dy·p of each row for softmax, Σ dy for log_softmax [ROWS, 1]."""
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        dy = load(dy_ptr + base + start + lane, inside)
        if KIND == SOFTMAX:
            x = load(x_ptr + base + start + lane, inside)
            p = tl.where(inside, exp(x - largest) * of_row, 0.0)
            total = tl.fma(dy, p, total)
        else:
            total += dy
    return merge_lanes(total, ROWS)


@triton.jit(do_not_specialize=["rows"])
def softmax_backward_kernel(
    dy_ptr, x_ptr, out_ptr, rows, n, KIND: tl.constexpr, ROWS: tl.constexpr
):
    row, live = program_rows(rows, ROWS)
    base = row * n
    lane = tl.arange(0, LANES)[None, :]
    largest = row_largest(x_ptr, base, live, n, ROWS)
    total = row_total(x_ptr, base, live, n, largest, ROWS)
    if KIND == LOG_SOFTMAX:
        of_row = log(total)
    else:
        of_row = divided(tl.full((ROWS, 1), 1.0, tl.float32), total)
    if KIND == LOGSUMEXP:
        projection = load(dy_ptr + row, live)
    else:
        projection = row_projection(dy_ptr, x_ptr, base, live, n, largest, of_row, KIND, ROWS)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        below = load(x_ptr + base + start + lane, inside) - largest
        if KIND == LOGSUMEXP:
            dx = (exp(below) * of_row) * projection
        else:
            dy = load(dy_ptr + base + start + lane, inside)
            if KIND == SOFTMAX:
                dx = (exp(below) * of_row) * (dy - projection)
            else:
                dx = tl.fma(-exp(below - of_row), projection, dy)
        dtype: tl.constexpr = out_ptr.dtype.element_ty
        tl.store(out_ptr + base + start + lane, rounded(dx, dtype), mask=inside)
