"""Batched matrix product on the CPU: each matrix of the batch as a linear layer.

In: a [B, M, K], b [B, K, N], one dtype, any strides. Out: [B, M, N], rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.cpu import portable
from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.registry import DTYPES


def bmm(
    a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None, isa: str | None = None
) -> Tensor:
    """As `reference.bmm.bmm`; `isa` as in `cpu.linear.linear`."""
    dtype = out_dtype or a.dtype
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ValueError(
            f"bmm takes a [B, M, K] and b [B, K, N]; given {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.dtype not in DTYPES or b.dtype != a.dtype or dtype not in DTYPES:
        raise TypeError(
            f"a {a.dtype}, b {b.dtype}, result {dtype}: a and b have one dtype, and all are "
            "float32, bfloat16 or float16"
        )
    if a.device.type != "cpu" or b.device.type != "cpu":
        raise ValueError("the CPU kernels take tensors on the CPU; move them with .cpu()")
    operators = chosen(isa)
    if operators is not None:
        return operators.bmm(a, b, dtype, isa or "")  # type: ignore[no-any-return]
    out = a.new_empty((len(a), a.shape[1], b.shape[2]), dtype=dtype)
    for i in range(len(a)):
        out[i] = portable.linear(a[i], b[i].transpose(0, 1), None, None, 1, dtype)
    return out
