"""RMSNorm, alone and with the residual added, and its gradients as Triton kernels.

In: x [..., K], weight [K], one dtype, eps. Out: as `driftscope_kernels.reference.norm`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import NormOptions
from driftscope_kernels.triton_kernels.arithmetic import (
    LANES,
    divided,
    load,
    merge_lanes,
    rounded,
    through,
)
from driftscope_kernels.triton_kernels.launch import ROWS, aligned, as_rows, launch, programs
from driftscope_kernels.triton_kernels.row_blocks import column_dots
from driftscope_kernels.triton_kernels.softmax import program_rows


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, options: NormOptions) -> Tensor:
    """As `reference.norm.rms_norm`."""
    return _normed(x, None, weight, eps, options)[0]


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, options: NormOptions
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.add_rms_norm`."""
    return _normed(x, residual, weight, eps, options)


def rms_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.rms_norm_backward`."""
    return _gradients(dy, None, x, None, weight, eps, options, carry)


def add_rms_norm_backward(
    dy: Tensor,
    dtotal: Tensor,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.add_rms_norm_backward`."""
    return _gradients(dy, dtotal, x, residual, weight, eps, options, carry)


def _constants(options: NormOptions, residual: Tensor | None) -> dict[str, Any]:
    return {
        "HAS_RESIDUAL": residual is not None,
        "ROUND_SUM": options.norm_reads == "rounded_sum",
        "ROUND_UNIT": options.weight_multiply == "after_cast",
        "ROWS": ROWS,
    }


def _normed(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, options: NormOptions
) -> tuple[Tensor, Tensor]:
    """The norm and, if there is a residual, the sum."""
    rows = as_rows(x)
    added = rows if residual is None else as_rows(residual)
    out, total = torch.empty_like(rows), torch.empty_like(rows)
    tensors = {"x_ptr": rows, "residual_ptr": added, "weight_ptr": aligned(weight)}
    results = {"out_ptr": out, "total_ptr": total}
    sizes = {"rows": len(rows), "n": rows.shape[1], "count": float(rows.shape[1]), "eps": eps}
    grid = (programs(len(rows), ROWS),)
    launch(norm_kernel, grid, {**tensors, **results, **sizes, **_constants(options, residual)})
    return out.reshape(x.shape), total.reshape(x.shape)


def _gradients(
    dy: Tensor,
    dtotal: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    options: NormOptions,
    carry: Tensor | None,
) -> tuple[Tensor, Tensor]:
    rows, slope = as_rows(x), as_rows(dy)
    added = rows if residual is None else as_rows(residual)
    handed_on = rows if dtotal is None else as_rows(dtotal)
    dx = torch.empty_like(rows)
    inverse = rows.new_empty(len(rows), dtype=torch.float32)
    # What the norm read: float32, for the sum of two numbers of a narrower dtype is not one of it.
    read = rows if residual is None else torch.empty_like(rows, dtype=torch.float32)
    tensors = {
        **{"dy_ptr": slope, "dtotal_ptr": handed_on, "x_ptr": rows, "residual_ptr": added},
        **{"weight_ptr": aligned(weight), "dx_ptr": dx, "inverse_ptr": inverse, "read_ptr": read},
    }
    sizes = {"rows": len(rows), "n": rows.shape[1], "count": float(rows.shape[1]), "eps": eps}
    constants = _constants(options, residual)
    del constants["ROUND_UNIT"]
    grid = (programs(len(rows), ROWS),)
    launch(norm_backward_kernel, grid, {**tensors, **sizes, **constants})
    round_unit = options.weight_multiply == "after_cast"
    dweight = column_dots(slope, read, inverse, carry, round_unit=round_unit)
    return dx.reshape(x.shape), dweight


@triton.jit
def _read(x_ptr, residual_ptr, offset, inside, HAS_RESIDUAL: tl.constexpr, ROUND_SUM: tl.constexpr):
    """The sum of x and residual, and what of it the norm reads."""
    total = load(x_ptr + offset, inside)
    if HAS_RESIDUAL:
        total += load(residual_ptr + offset, inside)
    read = total
    if HAS_RESIDUAL and ROUND_SUM:
        read = through(total, x_ptr.dtype.element_ty)
    return total, read


@triton.jit
def _inverse_rms(
    x_ptr,
    residual_ptr,
    base,
    live,
    n,
    count,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    ROUND_SUM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """1 / √(Σx²/K + eps) of each row [ROWS, 1]."""
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        offset = base + start + lane
        _, x = _read(x_ptr, residual_ptr, offset, inside, HAS_RESIDUAL, ROUND_SUM)
        total = tl.fma(x, x, total)
    one = tl.full((ROWS, 1), 1.0, tl.float32)
    mean_square = divided(merge_lanes(total, ROWS), one * count)
    return divided(one, tl.sqrt_rn(mean_square + eps))


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    total_ptr,
    rows,
    n,
    count,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    ROUND_SUM: tl.constexpr,
    ROUND_UNIT: tl.constexpr,
    ROWS: tl.constexpr,
):
    row, live = program_rows(rows, ROWS)
    base = row * n
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    inverse = _inverse_rms(
        x_ptr, residual_ptr, base, live, n, count, eps, HAS_RESIDUAL, ROUND_SUM, ROWS
    )
    lane = tl.arange(0, LANES)[None, :]
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        offset = base + start + lane
        total, x = _read(x_ptr, residual_ptr, offset, inside, HAS_RESIDUAL, ROUND_SUM)
        unit = x * inverse
        if ROUND_UNIT:
            unit = through(unit, dtype)
        y = unit * load(weight_ptr + start + lane, start + lane < n)
        tl.store(out_ptr + offset, rounded(y, dtype), mask=inside)
        if HAS_RESIDUAL:
            tl.store(total_ptr + offset, rounded(total, dtype), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_backward_kernel(
    dy_ptr,
    dtotal_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    dx_ptr,
    inverse_ptr,
    read_ptr,
    rows,
    n,
    count,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    ROUND_SUM: tl.constexpr,
    ROWS: tl.constexpr,
):
    row, live = program_rows(rows, ROWS)
    base = row * n
    inverse = _inverse_rms(
        x_ptr, residual_ptr, base, live, n, count, eps, HAS_RESIDUAL, ROUND_SUM, ROWS
    )
    tl.store(inverse_ptr + row, inverse, mask=live)
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        offset = base + start + lane
        _, x = _read(x_ptr, residual_ptr, offset, inside, HAS_RESIDUAL, ROUND_SUM)
        dunit = load(dy_ptr + offset, inside) * load(weight_ptr + start + lane, start + lane < n)
        # A padded lane must add +0·+0, also where 0·inverse is NaN.
        total = tl.fma(dunit, tl.where(inside, x * inverse, 0.0), total)
    one = tl.full((ROWS, 1), 1.0, tl.float32)
    projection = divided(merge_lanes(total, ROWS), one * count)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        offset = base + start + lane
        _, x = _read(x_ptr, residual_ptr, offset, inside, HAS_RESIDUAL, ROUND_SUM)
        dunit = load(dy_ptr + offset, inside) * load(weight_ptr + start + lane, start + lane < n)
        dx = inverse * tl.fma(-(x * inverse), projection, dunit)
        if HAS_RESIDUAL:
            dx += load(dtotal_ptr + offset, inside)
            tl.store(read_ptr + offset, x, mask=inside)
        tl.store(dx_ptr + offset, rounded(dx, dx_ptr.dtype.element_ty), mask=inside)
