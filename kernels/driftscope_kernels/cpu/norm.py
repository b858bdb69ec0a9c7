"""RMSNorm, with and without a residual, and gradients on the CPU: the bits of the reference, fast.

In: x [..., K], weight [K], one dtype, eps. Out: as `driftscope_kernels.reference.norm`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from driftscope_kernels.cpu.backend import chosen, contiguous_rows
from driftscope_kernels.options import ROW_BLOCK, NormOptions
from driftscope_kernels.reference import norm as reference


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, options: NormOptions, isa: str | None = None
) -> Tensor:
    """As `reference.norm.rms_norm`; `isa` as in `cpu.linear.linear`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.rms_norm(x, weight, eps, options=options)
    normed, _ = operators.rms_norm.default(
        contiguous_rows(x), None, weight.contiguous(), eps, *_flags(options), isa or ""
    )
    return normed.reshape(x.shape)  # type: ignore[no-any-return]


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.add_rms_norm`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.add_rms_norm(x, residual, weight, eps, options=options)
    rows = (contiguous_rows(x), contiguous_rows(residual), weight.contiguous())
    normed, total = operators.rms_norm.default(*rows, eps, *_flags(options), isa or "")
    return normed.reshape(x.shape), total.reshape(x.shape)


def rms_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.rms_norm_backward`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.rms_norm_backward(dy, x, weight, eps, options=options, carry=carry)
    return _backward(operators, dy, None, x, None, weight, eps, options, carry, isa)


def add_rms_norm_backward(
    dy: Tensor,
    dtotal: Tensor,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.norm.add_rms_norm_backward`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0:
        return reference.add_rms_norm_backward(
            dy, dtotal, x, residual, weight, eps, options=options, carry=carry
        )
    return _backward(operators, dy, dtotal, x, residual, weight, eps, options, carry, isa)


def _backward(
    operators: Any,
    dy: Tensor,
    dtotal: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    options: NormOptions,
    carry: Tensor | None,
    isa: str | None,
) -> tuple[Tensor, Tensor]:
    dx, dweight = operators.rms_norm_backward.default(
        contiguous_rows(dy),
        None if dtotal is None else contiguous_rows(dtotal),
        contiguous_rows(x),
        None if residual is None else contiguous_rows(residual),
        weight.contiguous(),
        eps,
        *_flags(options),
        None if carry is None else carry.contiguous(),
        ROW_BLOCK,
        isa or "",
    )
    return dx.reshape(x.shape), dweight


def _flags(options: NormOptions) -> tuple[bool, bool]:
    """round_before_weight and read_rounded_sum of csrc/rows/rows.h."""
    return options.weight_multiply == "after_cast", options.norm_reads == "rounded_sum"
