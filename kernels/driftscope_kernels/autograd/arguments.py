"""What every op asks of its arguments, with messages that say what to do.

In: tensors as a caller gave them. Out: nothing, or an ArgumentError.
"""

from __future__ import annotations

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
