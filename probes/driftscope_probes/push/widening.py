"""Half-precision log-probabilities as float32: exact, because float32 holds every such value.

In: an array as it was stored. Out: float32 with the same values, NaN and infinities included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A bfloat16 is the upper half of a float32.
MISSING_BITS = np.uint32(16)


def widened(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """`stored` holds F32 or F16 values, or BF16 bits as uint16; any shape."""
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= MISSING_BITS
        return bits.view(np.float32)
    return stored.astype(np.float32, copy=False)
