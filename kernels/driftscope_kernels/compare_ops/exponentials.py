"""Exponentials that attention kernels use, each by its own arithmetic, and a fused multiply-add.

In: float32. Out: float32, the bits that the kernel of that name computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from driftscope_kernels.reference.exp import exp as driftscope_exp

ExpName = Literal["torch", "u20", "exp2", "libm", "driftscope"]

LOG2_E: Final = float.fromhex("0x1.715476p+0")
LN_2: Final = float.fromhex("0x1.62e430p-1")
# Smallest and largest argument: below e^x is 0, above it stays what it is there.
SMALLEST: Final = float.fromhex("-0x1.5d58a0p+6")
LARGEST: Final = float.fromhex("0x1.62e430p+6")
#: torch's Vectorized::exp_u20 (aten/src/ATen/cpu/vec/vec512/vec512_float.h), from the fifth power
#: down; the same in vLLM's csrc/cpu/cpu_arch_macros.h. Float32 numbers, written in decimal.
POLYNOMIAL: Final = (0.00828929059, 0.0418978221, 0.166676521, 0.499991506, 0.999999701, 1.0)
HALFWAY: Final = 1 << 28  # bits of a float64 below a float32's last one that are half of it
BELOW_FLOAT32: Final = (1 << 29) - 1  # bits of a float64 that a float32 does not have


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a·b + c rounded to float32 once, for float32 tensors of one shape or ones to broadcast.

    The product is exact in float64, and so is nearly always one rounding of the sum to float64 and
    one to float32. Where the float64 falls half-way between two float32 numbers the part that its
    own rounding cut off decides, and the sum is rounded to odd (`reference.arithmetic.fma`).
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    halfway = (total.view(torch.int64) & BELOW_FLOAT32) == HALFWAY
    if bool(halfway.any()):
        total = torch.where(halfway, _odd(product, addend, total), total)
    return total.float()


def _odd(product: Tensor, addend: Tensor, total: Tensor) -> Tensor:
    virtual = total - product
    cut = (product - (total - virtual)) + (addend - virtual)
    step = torch.where((cut > 0) == (total > 0), 1, -1)
    bits = total.view(torch.int64) + torch.where((cut != 0) & total.isfinite(), step, 0)
    return bits.view(torch.float64)


def exp_u20(x: Tensor) -> Tensor:
    """What torch's and vLLM's attention kernels take on AVX-512; within 20 ULP."""

    def number(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float32)

    inside = x.clamp(SMALLEST, LARGEST)
    n = fused(inside, number(LOG2_E), number(0.5)).floor()
    r = fused(n, number(-LN_2), inside)
    y = torch.full_like(r, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        y = fused(y, r, number(coefficient))
    scaled = torch.ldexp(y, (n - 1).int()) * 2  # 2^128 would be no float32
    return scaled.masked_fill(x < SMALLEST, 0.0)


def _exp2(x: Tensor) -> Tensor:
    return torch.exp2(x * torch.tensor(LOG2_E, dtype=torch.float32))


def _libm(x: Tensor) -> Tensor:
    """glibc's expf is e^x rounded correctly but in one case in some thousands."""
    return x.double().exp().float()


def _driftscope(x: Tensor) -> Tensor:
    return torch.from_numpy(driftscope_exp(x.numpy()))


EXPONENTIALS: Final[Mapping[ExpName, Callable[[Tensor], Tensor]]] = {
    "torch": torch.exp,
    "u20": exp_u20,
    "exp2": _exp2,
    "libm": _libm,
    "driftscope": _driftscope,
}
