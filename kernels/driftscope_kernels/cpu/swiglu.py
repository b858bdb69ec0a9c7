"""SwiGLU and its gradients on the CPU: the bits of the reference, fast.

In: gate and up, one shape and dtype. Out: as `driftscope_kernels.reference.swiglu`.
"""

from __future__ import annotations

from torch import Tensor

from driftscope_kernels.cpu.backend import chosen, contiguous_rows
from driftscope_kernels.options import SwigluOptions
from driftscope_kernels.reference import swiglu as reference


def swiglu(gate: Tensor, up: Tensor, *, options: SwigluOptions, isa: str | None = None) -> Tensor:
    """As `reference.swiglu.swiglu`; `isa` as in `cpu.linear.linear`."""
    operators = chosen(isa)
    if operators is None or gate.numel() == 0 or gate.dim() == 0:
        return reference.swiglu(gate, up, options=options)
    rows = (contiguous_rows(gate), contiguous_rows(up))
    y: Tensor = operators.swiglu.default(*rows, options.silu == "rounded", isa or "")
    return y.reshape(gate.shape)


def swiglu_backward(
    dy: Tensor, gate: Tensor, up: Tensor, *, options: SwigluOptions, isa: str | None = None
) -> tuple[Tensor, Tensor]:
    """As `reference.swiglu.swiglu_backward`."""
    operators = chosen(isa)
    if operators is None or gate.numel() == 0 or gate.dim() == 0:
        return reference.swiglu_backward(dy, gate, up, options=options)
    rows = (contiguous_rows(dy), contiguous_rows(gate), contiguous_rows(up))
    dgate, dup = operators.swiglu_backward.default(*rows, options.silu == "rounded", isa or "")
    return dgate.reshape(gate.shape), dup.reshape(gate.shape)
