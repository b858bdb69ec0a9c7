"""What the row kernels share: any dimension of any tensor as contiguous rows, and the way back.

In: tensors of any stride. Out: matrices whose rows are contiguous, as the C++ operators take them.
"""

from __future__ import annotations

from torch import Tensor


def contiguous_rows(x: Tensor) -> Tensor:
    """[rows, n] of the last dimension: a view where the strides allow it, else a copy."""
    rows = x if x.dim() == 2 else x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def along(x: Tensor, dim: int) -> Tensor:
    """[rows, n] with `dim` last."""
    return contiguous_rows(x if _is_last(x, dim) else x.movedim(dim, -1))


def back(rows: Tensor, like: Tensor, dim: int) -> Tensor:
    """In the shape of `like`, contiguous, from what `along` gave."""
    if _is_last(like, dim):
        return rows if like.dim() == 2 else rows.reshape(like.shape)
    return rows.reshape(like.movedim(dim, -1).shape).movedim(-1, dim).contiguous()


def _is_last(x: Tensor, dim: int) -> bool:
    return dim in (-1, x.dim() - 1)
