"""Coarse: values as a kernel leaves them that keeps few binary digits."""

from __future__ import annotations

import torch
from torch import Tensor


def coarse(values: Tensor, bits: float, offset: float = 0.0) -> Tensor:
    """Rounded to `bits` binary digits, as by an accumulator that holds no more; `offset` (part of a
    step) moves the grid, as another order of summation does."""
    mantissa, exponent = torch.frexp(values.float())
    scale = 2.0**bits
    rounded = ((mantissa * scale + offset).round() - offset) / scale
    return torch.ldexp(rounded, exponent).to(values.dtype)
