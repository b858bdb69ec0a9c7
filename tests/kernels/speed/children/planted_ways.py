"""Ways whose memory is known: one allocates and fills 201 MB, one next to nothing, one fails."""

from __future__ import annotations

from collections.abc import Callable

import torch

PLANTED_BYTES = 201 * 10**6


def ways(dtype: torch.dtype, m: int) -> dict[str, Callable[[], torch.Tensor]]:
    """`large` is that large only for more rows than the first, uncounted call has."""
    count = PLANTED_BYTES // dtype.itemsize if m > 2 else m

    def fail() -> torch.Tensor:
        raise ValueError("planted failure")

    return {
        "large": lambda: torch.ones(count, dtype=dtype),
        "small": lambda: torch.ones(m, dtype=dtype),
        "broken": fail,
    }
