"""Any dimension of a tensor of any stride as the columns of a float32 matrix, and back.

In: a tensor and the dimension(s) that an op works along. Out: float32 [rows, n]; tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.fma import Float32


def along(x: Tensor, dim: int) -> Float32:
    """[rows, n]: `dim` last, the others flattened in their order."""
    moved = x.movedim(dim, -1)
    return widened(moved).reshape(moved.shape[:-1].numel(), moved.shape[-1])


def back(rows: Float32, like: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Tensor in the shape of `like`, rounded to dtype, from what `along` gave."""
    shape = like.movedim(dim, -1).shape
    return rounded(rows, dtype).reshape(shape).movedim(-1, dim).contiguous()
