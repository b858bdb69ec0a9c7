"""Rotary position embedding on the CPU: the bits of the reference, fast.

In: x [..., heads, D], cos and sin [..., R/2]. Out: as `driftscope_kernels.reference.rotary`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen, contiguous_rows
from driftscope_kernels.options import RotaryOptions
from driftscope_kernels.reference.rotary import rotary as reference

# The numbers that csrc/rows/rows.h gives to them.
ARITHMETIC = {"fused": 0, "unfused": 1, "model_dtype": 2}


def rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    options: RotaryOptions,
    isa: str | None = None,
) -> Tensor:
    """As `reference.rotary.rotary`; `isa` as in `cpu.linear.linear`."""
    operators = chosen(isa)
    if operators is None or x.numel() == 0 or cos.numel() == 0:
        return reference(x, cos, sin, interleaved=interleaved, options=options)
    rows = contiguous_rows(x).view(-1, *x.shape[-2:])
    tables = (_table(table, x, options) for table in (cos, sin))
    y: Tensor = operators.rotary.default(
        rows, *tables, interleaved, ARITHMETIC[options.arithmetic], isa or ""
    )
    return y.reshape(x.shape)


def _table(table: Tensor, x: Tensor, options: RotaryOptions) -> Tensor:
    """[tokens, R/2] in the dtype of x, or exact in float32."""
    dtype = x.dtype if options.table == "rounded" else torch.float32
    wide = table.to(dtype).expand(*x.shape[:-2], table.shape[-1])
    return wide.reshape(-1, table.shape[-1]).contiguous()
