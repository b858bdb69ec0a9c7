"""Which arguments our kernels take, the casts that autocast makes before a matrix product, and the
error for what invariant mode will not run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.registry import DTYPES


class InvariantModeError(RuntimeError):
    """An op whose result inherently depends on the batch, such as dropout."""


def eligible(*tensors: Any) -> bool:
    """All are ordinary tensors on the CPU, of one dtype that the kernels have; None counts not."""
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(isinstance(tensor, Tensor) and tensor.device.type == "cpu" for tensor in given)
        and all(tensor.layout == torch.strided for tensor in given)
        and len({tensor.dtype for tensor in given}) == 1
        and given[0].dtype in DTYPES
    )


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """As torch.autocast casts the arguments of a matrix product, where it is switched on."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(
        tensor.to(dtype) if isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor
        for tensor in tensors
    )
