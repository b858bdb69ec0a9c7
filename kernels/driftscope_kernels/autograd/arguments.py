"""What every op requires of its arguments, and where the gradient of a parameter goes: to autograd,
or into a float32 `main_grad` of its own.

Autograd adds up the micro-batches' gradients in the parameter's dtype: their sums are nested and,
in 16 bits, rounded each time. The bits are those of the whole batch only if the parameter is
float32 and every micro-batch after the first is one block of rows. A parameter with an attribute
`main_grad` (float32, its shape; the name is Megatron's; `attach_main_grad` makes one) gets each
block added there in order instead, and `.grad` stays None: then any cut at multiples of ROW_BLOCK
rows gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.registry import DTYPES


class ArgumentError(ValueError):
    """A shape, dtype or device that an op does not take."""


def require_same_dtype(op: str, **tensors: Tensor | None) -> None:
    """All on the CPU and of one of the three dtypes; None stands for an optional one left out."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        if tensor.device.type != "cpu":
            raise ArgumentError(f"{op}: {name} is on {tensor.device}; these kernels run on the CPU")
    dtypes = {tensor.dtype for tensor in given.values()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        raise ArgumentError(
            f"{op}: dtypes are "
            + ", ".join(f"{name} {tensor.dtype}" for name, tensor in given.items())
            + "; give all of them one dtype, float32, bfloat16 or float16"
        )


def require_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ArgumentError(f"{op}: {name} has shape {tuple(tensor.shape)}, expected {shape}")


def require_dims(op: str, name: str, tensor: Tensor, at_least: int) -> None:
    if tensor.dim() < at_least:
        raise ArgumentError(
            f"{op}: {name} has {tensor.dim()} dimensions, at least {at_least} are needed"
        )


def positive_dim(op: str, x: Tensor, dim: int) -> int:
    """The dimension counted from the front."""
    if not -x.dim() <= dim < x.dim():
        raise ArgumentError(f"{op}: there is no dimension {dim} in a tensor of {x.dim()}")
    return dim % x.dim()


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
