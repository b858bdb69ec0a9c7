"""Batched matrix product: the linear contract for each matrix of the batch.

In: a [B, M, K], b [B, K, N], one dtype. Out: [B, M, N], rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.reference.linear import linear


def bmm(a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """a[i]·b[i] with k ascending in one float32 accumulator per output."""
    out = a.new_empty((len(a), a.shape[1], b.shape[2]), dtype=out_dtype or a.dtype)
    for i in range(len(a)):
        out[i] = linear(a[i], b[i].transpose(0, 1), out_dtype=out_dtype)
    return out
