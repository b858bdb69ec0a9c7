"""sum and mean over any dimensions of a tensor of any stride.

In: x. Out: x without the dimensions (or with length 1 there), rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.reference.arithmetic import Float32, lane_sum
from driftscope_kernels.reference.arrays import rounded, widened


def sum(
    x: Tensor, dims: Sequence[int], *, keepdim: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Σ by `lane_sum` over the elements in the order of the dimensions, the last one fastest."""
    total = lane_sum(_rows(x, dims))
    return rounded(total, out_dtype or x.dtype).reshape(_shape(x, dims, keepdim))


@np.errstate(all="ignore")
def mean(
    x: Tensor, dims: Sequence[int], *, keepdim: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Σ / n, divided in float32; NaN where n is 0."""
    rows = _rows(x, dims)
    total = lane_sum(rows) / np.float32(rows.shape[1])
    return rounded(total, out_dtype or x.dtype).reshape(_shape(x, dims, keepdim))


def _rows(x: Tensor, dims: Sequence[int]) -> Float32:
    """[kept, reduced]; the order of `dims` plays no part, nor do the strides."""
    kept = [d for d in range(x.dim()) if d not in dims]
    shape = torch.Size([x.shape[d] for d in kept])
    n = torch.Size([x.shape[d] for d in dims]).numel()
    return widened(x.permute([*kept, *sorted(dims)])).reshape(shape.numel(), n)


def _shape(x: Tensor, dims: Sequence[int], keepdim: bool) -> list[int]:
    return [1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d not in dims]
