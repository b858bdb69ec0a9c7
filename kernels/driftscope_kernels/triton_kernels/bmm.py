"""Batched matrix product as a Triton kernel.

In: a [B, M, K], b [B, K, N], one dtype. Out: as `driftscope_kernels.reference.bmm`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.triton_kernels.launch import aligned
from driftscope_kernels.triton_kernels.matmul import Dot, Operand, matmul


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
