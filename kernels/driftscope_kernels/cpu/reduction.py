"""sum and mean over any dimensions on the CPU: the bits of the reference, fast.

In: x. Out: as `driftscope_kernels.reference.reduction`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen, contiguous_rows
from driftscope_kernels.reference import reduction as reference


def sum(
    x: Tensor,
    dims: Sequence[int],
    *,
    keepdim: bool = False,
    out_dtype: torch.dtype | None = None,
    isa: str | None = None,
) -> Tensor:
    """As `reference.reduction.sum`; `isa` as in `cpu.linear.linear`."""
    if _is_left_to_the_reference(x, dims, isa):
        return reference.sum(x, dims, keepdim=keepdim, out_dtype=out_dtype)
    return _divided_sum(_rows(x, dims), 1.0, out_dtype or x.dtype, isa).reshape(
        _shape(x, dims, keepdim)
    )


def mean(
    x: Tensor,
    dims: Sequence[int],
    *,
    keepdim: bool = False,
    out_dtype: torch.dtype | None = None,
    isa: str | None = None,
) -> Tensor:
    """As `reference.reduction.mean`."""
    if _is_left_to_the_reference(x, dims, isa):
        return reference.mean(x, dims, keepdim=keepdim, out_dtype=out_dtype)
    rows = _rows(x, dims)
    return _divided_sum(rows, float(rows.shape[1]), out_dtype or x.dtype, isa).reshape(
        _shape(x, dims, keepdim)
    )


def _is_left_to_the_reference(x: Tensor, dims: Sequence[int], isa: str | None) -> bool:
    return chosen(isa) is None or x.numel() == 0 or not dims


def _divided_sum(rows: Tensor, divisor: float, dtype: torch.dtype, isa: str | None) -> Tensor:
    total: Tensor = chosen(isa).sum.default(rows, divisor, dtype, isa or "")
    return total


def _rows(x: Tensor, dims: Sequence[int]) -> Tensor:
    if x.dim() == 2 and dims[0] in (1, -1) and len(dims) == 1:
        return contiguous_rows(x)
    kept = [d for d in range(x.dim()) if d not in dims]
    n = torch.Size([x.shape[d] for d in dims]).numel()
    return contiguous_rows(x.permute(*kept, *sorted(dims)).reshape(-1, n))


def _shape(x: Tensor, dims: Sequence[int], keepdim: bool) -> list[int]:
    return [1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d not in dims]
