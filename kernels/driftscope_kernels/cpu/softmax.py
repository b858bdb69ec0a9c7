"""softmax, log_softmax, logsumexp and their gradients on the CPU: the bits of the reference, fast.

In: x, any shape and stride. Out: as `driftscope_kernels.reference.softmax`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import along, back, chosen
from driftscope_kernels.reference import softmax as reference

# The numbers that csrc/rows/rows.h gives to the three.
SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = range(3)


def softmax(
    x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None, isa: str | None = None
) -> Tensor:
    """As `reference.softmax.softmax`; `isa` as in `cpu.linear.linear`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.softmax(x, dim, out_dtype=out_dtype)
    rows = operators.softmax_family.default(along(x, dim), SOFTMAX, out_dtype or x.dtype, isa or "")
    return back(rows, x, dim)


def log_softmax(
    x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None, isa: str | None = None
) -> Tensor:
    """As `reference.softmax.log_softmax`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.log_softmax(x, dim, out_dtype=out_dtype)
    rows = operators.softmax_family.default(
        along(x, dim), LOG_SOFTMAX, out_dtype or x.dtype, isa or ""
    )
    return back(rows, x, dim)


def logsumexp(
    x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None, isa: str | None = None
) -> Tensor:
    """As `reference.softmax.logsumexp`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.logsumexp(x, dim, out_dtype=out_dtype)
    sums: Tensor = operators.softmax_family.default(
        along(x, dim), LOGSUMEXP, out_dtype or x.dtype, isa or ""
    )
    return sums.reshape(x.movedim(dim, -1).shape[:-1])


def softmax_backward(dy: Tensor, x: Tensor, dim: int, *, isa: str | None = None) -> Tensor:
    """As `reference.softmax.softmax_backward`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.softmax_backward(dy, x, dim)
    rows = operators.softmax_family_backward.default(
        along(dy, dim), along(x, dim), SOFTMAX, isa or ""
    )
    return back(rows, x, dim)


def log_softmax_backward(dy: Tensor, x: Tensor, dim: int, *, isa: str | None = None) -> Tensor:
    """As `reference.softmax.log_softmax_backward`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.log_softmax_backward(dy, x, dim)
    rows = operators.softmax_family_backward.default(
        along(dy, dim), along(x, dim), LOG_SOFTMAX, isa or ""
    )
    return back(rows, x, dim)


def logsumexp_backward(dy: Tensor, x: Tensor, dim: int, *, isa: str | None = None) -> Tensor:
    """As `reference.softmax.logsumexp_backward`; dy without the dimension."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.logsumexp_backward(dy, x, dim)
    slope = dy.contiguous().reshape(-1, 1)
    rows = operators.softmax_family_backward.default(slope, along(x, dim), LOGSUMEXP, isa or "")
    return back(rows, x, dim)
