"""What the tests of the reference share: bitwise comparison, and a row alone against a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}

SameBits = Callable[[Tensor, Tensor], None]
RowsIndependent = Callable[[Callable[[Tensor], Tensor], Tensor], None]


@pytest.fixture
def same_bits() -> SameBits:
    def check(a: Tensor, b: Tensor) -> None:
        assert a.dtype == b.dtype and a.shape == b.shape
        view = BITS.get(a.dtype, a.dtype)
        assert torch.equal(a.contiguous().view(view), b.contiguous().view(view))

    return check


@pytest.fixture
def rows_independent(same_bits: SameBits) -> RowsIndependent:
    """run(x) row by row: alone, in every prefix, reversed, between other rows, and once more."""

    def check(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
        whole = run(x)
        same_bits(run(x), whole)
        same_bits(run(x.flip(0)), whole.flip(0))
        for row in range(len(x)):
            same_bits(run(x[row : row + 1]), whole[row : row + 1])
            same_bits(run(x[: row + 1]), whole[: row + 1])
        neighbours = torch.full_like(x, torch.finfo(x.dtype).max)
        neighbours[0] = torch.nan
        mixed = torch.cat([neighbours[:1], x, neighbours[1:]])
        same_bits(run(mixed)[1 : 1 + len(x)], whole)

    return check
