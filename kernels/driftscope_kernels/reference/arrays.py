"""Between torch tensors and the float32 numpy arrays that the reference computes on.

In: tensors in float32, bfloat16 or float16, any stride. Out: float32 arrays, any dimension as the
columns of a matrix, and rounded tensors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.reference.arithmetic import Float32

QUIET_NAN = np.float32(np.nan)  # 0x7FC00000; 0x7FC0 in bfloat16, 0x7E00 in float16
QUIET_NAN_BFLOAT16 = 0x7FC0


def widened(x: Tensor) -> Float32:
    """Exact float32 copy; every bfloat16 and float16 number is a float32 number."""
    array: Float32 = x.detach().to(torch.float32).contiguous().numpy()
    return array


def rounded(array: Float32, dtype: torch.dtype) -> Tensor:
    """Tensor of the array's values rounded once to nearest even; every NaN becomes the quiet NaN.

    The payload that survives an operation on two NaNs depends on the order of operands a compiler
    chose: without one NaN for all, meaningless bits would differ.
    """
    array = np.asarray(array, np.float32)
    nan = np.isnan(array)
    quiet = np.ascontiguousarray(np.where(nan, QUIET_NAN, array))
    result = torch.from_numpy(quiet).to(dtype)
    if dtype == torch.bfloat16 and nan.any():
        # torch's vectorised conversion gives 0xFFFF here, its scalar one 0x7FC0.
        result.view(torch.int16)[torch.from_numpy(np.asarray(nan))] = QUIET_NAN_BFLOAT16
    return result


def rounded_float32(array: Float32, dtype: torch.dtype) -> Float32:
    """The values after rounding to the dtype, widened again: a rounding point inside an op."""
    return array if dtype == torch.float32 else widened(rounded(array, dtype))


def along(x: Tensor, dim: int) -> Float32:
    """[rows, n]: `dim` last, the others flattened in their order."""
    moved = x.movedim(dim, -1)
    return widened(moved).reshape(moved.shape[:-1].numel(), moved.shape[-1])


def back(rows: Float32, like: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Tensor in the shape of `like`, rounded to dtype, from what `along` gave."""
    shape = like.movedim(dim, -1).shape
    return rounded(rows, dtype).reshape(shape).movedim(-1, dim).contiguous()
