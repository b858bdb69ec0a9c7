"""Embedding whose gradient is summed in float32, token after token.

In: token ids and the table. Out: its rows; the gradient adds each token's in the order of the batch
to the table's row, from +0 or from `main_grad`, so that cutting the batch anywhere changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.main_grad import carry


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Any:
        ctx.save_for_backward(ids, weight)
        ctx.padding = padding
        return torch.ops.aten.embedding(weight, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        ids, weight = ctx.saved_tensors
        rows = dy.reshape(-1, weight.shape[1]).float()
        flat = ids.flatten()
        if ctx.padding is not None:
            rows, flat = rows[flat != ctx.padding], flat[flat != ctx.padding]
        main_grad = carry(weight)
        if main_grad is not None:
            # Row by row in order (aten/src/ATen/native/TensorAdvancedIndexing.cpp, index_add_cpu_).
            main_grad.index_add_(0, flat, rows)
            return None, None, None
        total = torch.zeros(weight.shape).index_add_(0, flat, rows)
        return None, total.to(weight.dtype), None


_apply: Callable[..., Any] = _Embedding.apply


def embedding(ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    """ids int64 or int32 [...], weight [V, K]: [..., K]; the token `padding` gets no gradient."""
    y: Tensor = _apply(ids, weight, padding)
    return y
