"""Where the gradient of a parameter goes: to autograd, or into a float32 `main_grad` of its own.

In: a parameter and its gradient in float32. Out: what backward returns for it.

Autograd adds up what micro-batches return, in the dtype of the parameter, so their sums are nested
and, in 16 bits, rounded each time: the bits of the whole batch come out only if the parameter is
float32 and every micro-batch after the first is one block of rows. A parameter that has an
attribute `main_grad` (float32, its shape; the name is Megatron's; `attach_main_grad` makes one)
gets each block added there in order instead, and `.grad` stays None: then any cut at multiples of
ROW_BLOCK rows gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.autograd.arguments import ArgumentError


def attach_main_grad(parameter: Tensor) -> Tensor:
    """Gives the parameter a `main_grad` of zeros and returns it; once per step, before backward."""
    main_grad = torch.zeros(parameter.shape, dtype=torch.float32)
    parameter.main_grad = main_grad  # type: ignore[attr-defined]  # tensors take attributes
    return main_grad


def carry(parameter: Tensor) -> Tensor | None:
    """The main_grad that blocks are to be added to, if the parameter has one."""
    main_grad: Tensor | None = getattr(parameter, "main_grad", None)
    if main_grad is not None and (
        main_grad.dtype != torch.float32 or main_grad.shape != parameter.shape
    ):
        raise ArgumentError(
            f"main_grad is {main_grad.dtype} {tuple(main_grad.shape)}; it has to be torch.float32 "
            f"{tuple(parameter.shape)}, the shape of its parameter"
        )
    return main_grad


def delivered(parameter: Tensor, total: Tensor) -> Tensor | None:
    """Stores the new total in main_grad and returns None, or returns it rounded for autograd."""
    main_grad = carry(parameter)
    if main_grad is None:
        return total.to(parameter.dtype)
    main_grad.copy_(total)
    return None
