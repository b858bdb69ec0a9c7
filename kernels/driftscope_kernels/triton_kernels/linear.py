# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators
"""Matrix products as Triton kernels: linear, the gradients of its weight and bias, bmm.

In: one dtype. Out: as `driftscope_kernels.reference.linear`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.reference.linear import segment_bounds
from driftscope_kernels.triton_kernels.arithmetic import load, rounded
from driftscope_kernels.triton_kernels.launch import ALIGNMENT, aligned, as_rows, launch, programs
from driftscope_kernels.triton_kernels.matmul import Dot, Operand, matmul
from driftscope_kernels.triton_kernels.row_blocks import column_sums

MERGE_BLOCK = 1024


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    tp_segments: int = 1,
    weight_pack: object = None,
    out_dtype: torch.dtype | None = None,
    initial: Tensor | None = None,
    dot: Dot = "tensor_cores",
) -> Tensor:
    """As `reference.linear.linear`; `dot` "in_order" gives its bits, "tensor_cores" is fast."""
    rows, k = as_rows(x), x.shape[-1]
    out = rows.new_empty((len(rows), len(weight)), dtype=out_dtype or x.dtype)
    shift = None if bias is None else aligned(bias)
    if tp_segments == 1:
        start = None if initial is None else aligned(initial)
        _product(rows, weight, out, (0, k), dot, start, shift)
    elif tp_segments == TP_SEGMENTS and initial is None:
        parts = rows.new_empty((TP_SEGMENTS, *out.shape), dtype=torch.float32)
        for part, bounds in zip(parts, segment_bounds(k), strict=True):
            _product(rows, weight, part, bounds, dot)
        _merge(parts, shift, out)
    else:
        raise ValueError(
            f"tp_segments = {tp_segments}: 1 and {TP_SEGMENTS} are accepted, and {TP_SEGMENTS} "
            "only without `initial`"
        )
    return out.reshape(*x.shape[:-1], len(weight))


def weight_operand(weight: Tensor) -> Operand:
    """A weight where it lies, transposed or not; copied only if it is not aligned."""
    held = weight.detach()
    if held.data_ptr() % ALIGNMENT:
        held = held.clone()
    return Operand(held, held.stride(0), held.stride(1))


def _product(
    rows: Tensor,
    weight: Tensor,
    out: Tensor,
    k: tuple[int, int],
    dot: Dot,
    initial: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    matmul(
        Operand(rows, rows.shape[1], 1),
        weight_operand(weight),
        out,
        rows=len(rows),
        columns=len(weight),
        k=k,
        initial=initial,
        bias=bias,
        dot=dot,
    )


def _merge(parts: Tensor, bias: Tensor | None, out: Tensor) -> None:
    arguments = {
        **{"parts_ptr": parts, "bias_ptr": parts if bias is None else bias, "out_ptr": out},
        **{"count": out.numel(), "columns": out.shape[1]},
        **{"HAS_BIAS": bias is not None, "BLOCK": MERGE_BLOCK},
    }
    launch(merge_segments_kernel, (programs(out.numel(), MERGE_BLOCK),), arguments)


@triton.jit
def _pair(parts_ptr, offset, inside, count, first: tl.constexpr):
    left = tl.load(parts_ptr + first * count + offset, mask=inside, other=0.0)
    return left + tl.load(parts_ptr + (first + 1) * count + offset, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["count"])
def merge_segments_kernel(
    parts_ptr, bias_ptr, out_ptr, count, columns, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    """((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)), bias, one rounding."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < count
    low = _pair(parts_ptr, offset, inside, count, 0) + _pair(parts_ptr, offset, inside, count, 2)
    high = _pair(parts_ptr, offset, inside, count, 4) + _pair(parts_ptr, offset, inside, count, 6)
    total = low + high
    if HAS_BIAS:
        total += load(bias_ptr + offset % columns, inside)
    tl.store(out_ptr + offset, rounded(total, out_ptr.dtype.element_ty), mask=inside)


def linear_weight_grad(
    dy: Tensor, x: Tensor, carry: Tensor | None = None, *, dot: Dot = "tensor_cores"
) -> Tensor:
    """As `reference.linear_backward.linear_weight_grad`."""
    slope, rows = aligned(dy), aligned(x)
    columns, k = slope.shape[1], rows.shape[1]
    out = rows.new_empty((columns, k), dtype=torch.float32)
    matmul(
        Operand(slope, 1, columns),
        Operand(rows, 1, k),
        out,
        rows=columns,
        columns=k,
        k=(0, len(rows)),
        initial=None if carry is None else aligned(carry),
        fold=True,
        dot=dot,
    )
    return out


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None) -> Tensor:
    """As `reference.linear_backward.linear_bias_grad`."""
    return column_sums(aligned(dy), carry)


def bmm(
    a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None, dot: Dot = "tensor_cores"
) -> Tensor:
    """As `reference.bmm.bmm`."""
    left, right = aligned(a), aligned(b)
    batch, rows, k = left.shape
    columns = right.shape[2]
    out = left.new_empty((batch, rows, columns), dtype=out_dtype or a.dtype)
    matmul(
        Operand(left, k, 1),
        Operand(right, 1, columns),
        out,
        rows=rows,
        columns=columns,
        k=(0, k),
        batch=batch,
        w_batch=k * columns,
        dot=dot,
    )
    return out
