"""Rounds float32 to bfloat16 without torch: numpy has no bfloat16 of its own.

In: float32 arrays. Out: the 16-bit patterns as uint16, the layout that safetensors calls BF16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A bfloat16 is the upper half of a float32.
DROPPED_BITS = np.uint32(16)
# Adding just under half a unit, plus the kept part's last bit, makes the cut round to nearest even
# (IEEE 754 section 4.3.1; the same as torch's conversion).
JUST_UNDER_HALF = np.uint32(0x7FFF)


def round_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Nearest bfloat16, ties to even, of finite values; same shape."""
    assert np.isfinite(values).all(), "a NaN's payload could round to infinity"
    bits = np.ascontiguousarray(values).view(np.uint32)
    last_kept_bit = (bits >> DROPPED_BITS) & np.uint32(1)
    rounded: NDArray[np.uint16] = ((bits + JUST_UNDER_HALF + last_kept_bit) >> DROPPED_BITS).astype(
        np.uint16
    )
    return rounded
