"""sum and mean as Triton kernels.

In: x, any shape and stride. Out: as `driftscope_kernels.reference.reduction`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.triton_kernels.arithmetic import LANES, divided, load, merge_lanes, rounded
from driftscope_kernels.triton_kernels.launch import ROWS, aligned, launch, programs
from driftscope_kernels.triton_kernels.softmax import program_rows


def sum(
    x: Tensor, dims: Sequence[int], *, keepdim: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """As `reference.reduction.sum`."""
    return _reduced(x, dims, keepdim, out_dtype, mean=False)


def mean(
    x: Tensor, dims: Sequence[int], *, keepdim: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """As `reference.reduction.mean`."""
    return _reduced(x, dims, keepdim, out_dtype, mean=True)


def _reduced(
    x: Tensor, dims: Sequence[int], keepdim: bool, out_dtype: torch.dtype | None, *, mean: bool
) -> Tensor:
    kept = [d for d in range(x.dim()) if d not in dims]
    n = torch.Size([x.shape[d] for d in dims]).numel()
    rows = torch.Size([x.shape[d] for d in kept]).numel()
    elements = aligned(x.permute([*kept, *sorted(dims)]).reshape(rows, n))
    out = x.new_empty(rows, dtype=out_dtype or x.dtype)
    arguments = {"x_ptr": elements, "out_ptr": out, "rows": rows, "n": n, "count": float(n)}
    launch(reduction_kernel, (programs(rows, ROWS),), {**arguments, "MEAN": mean, "ROWS": ROWS})
    return out.reshape(
        [1 if d in dims else s for d, s in enumerate(x.shape) if keepdim or d in kept]
    )


@triton.jit(do_not_specialize=["rows"])
def reduction_kernel(x_ptr, out_ptr, rows, n, count, MEAN: tl.constexpr, ROWS: tl.constexpr):
    row, live = program_rows(rows, ROWS)
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, n, LANES):
        inside = live & (start + lane < n)
        total += load(x_ptr + row * n + start + lane, inside)
    result = merge_lanes(total, ROWS)
    if MEAN:
        result = divided(result, tl.full((ROWS, 1), 1.0, tl.float32) * count)
    tl.store(out_ptr + row, rounded(result, out_ptr.dtype.element_ty), mask=live)
