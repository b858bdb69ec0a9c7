"""Where values lie in FP16's range: counts of what would overflow, turn subnormal or vanish.

In: tensors, one after another. Out: largest magnitude and shares of the non-zero values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: IEEE 754 binary16: largest finite number.
FP16_MAX = 65_504.0
# Rounding to nearest, ties to even, moves each limit by half a step of the grid around it:
#: from here on a value becomes infinite,
OVERFLOW_FROM = 65_520.0
#: from here on it keeps all 11 bits (2^-14 is the smallest normal number),
NORMAL_FROM = 2.0**-14 - 2.0**-25
#: and up to here it becomes zero (2^-24 is the smallest subnormal number).
VANISHES_UP_TO = 2.0**-25
#: Values looked at in one go: temporaries stay in the cache instead of being paged in anew.
BLOCK = 1 << 18


@dataclass(slots=True)
class HalfPrecisionRange:
    """What rounding `scale` times a value to float16 would do to the values added so far.

    Overflow: infinite, or not finite to begin with. Subnormal: keeps fewer than 11 bits.
    Underflow: becomes zero. Zeros are counted nowhere: they lose nothing.
    """

    scale: float = 1.0  # a power of two: scaling itself rounds nothing
    largest: float = 0.0  # magnitude, scaled; infinite where a value was infinite or NaN
    values: int = 0  # non-zero ones
    overflow: int = 0
    subnormal: int = 0
    underflow: int = 0

    def share(self, count: int) -> float:
        return count / self.values if self.values else 0.0

    def to_dict(self, prefix: str) -> dict[str, float | None]:
        """Keys `<prefix>_max` and three shares; a maximum that is not finite is None (JSON)."""
        return {
            f"{prefix}_max": self.largest if math.isfinite(self.largest) else None,
            f"{prefix}_overflow_share": self.share(self.overflow),
            f"{prefix}_subnormal_share": self.share(self.subnormal),
            f"{prefix}_underflow_share": self.share(self.underflow),
        }

    def _count(self, magnitudes: Tensor, nonzero: int, largest: float) -> None:
        """The limits are divided, not the values multiplied: no second copy of the tensor."""
        self.largest = max(self.largest, largest * self.scale)
        self.values += nonzero
        if largest * self.scale >= OVERFLOW_FROM:
            fits = int((magnitudes < OVERFLOW_FROM / self.scale).count_nonzero())
            self.overflow += magnitudes.numel() - fits  # NaN fits nowhere
        zero = magnitudes.numel() - nonzero
        small = int((magnitudes < NORMAL_FROM / self.scale).count_nonzero())
        vanishing = int((magnitudes <= VANISHES_UP_TO / self.scale).count_nonzero())
        self.subnormal += small - vanishing
        self.underflow += vanishing - zero


def add_values(tensor: Tensor, *ranges: HalfPrecisionRange) -> None:
    """Count a tensor's values (taken as float32) in each of the ranges."""
    for block in torch.split(tensor.detach().float().flatten(), BLOCK):
        if block.numel() == 0:
            continue
        magnitudes = block.abs()
        largest = float(magnitudes.amax())
        nonzero = int(magnitudes.count_nonzero())
        for target in ranges:
            target._count(magnitudes, nonzero, largest if math.isfinite(largest) else math.inf)
