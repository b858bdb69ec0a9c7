from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference.linear import RANKS, linear, merge_ranks, rank_partial

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def over_ranks(x: Tensor, weight: Tensor, bias: Tensor, ranks: int) -> Tensor:
    parts = zip(x.chunk(ranks, dim=1), weight.chunk(ranks, dim=1), strict=True)
    return merge_ranks([rank_partial(a, b, ranks) for a, b in parts], bias, x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [64, 24, 8])  # 24: segments of 3, odd in bfloat16
def test_any_number_of_ranks_gives_the_bits_of_one(
    dtype: torch.dtype, k: int, same_bits: Callable[..., None]
) -> None:
    generator = torch.Generator().manual_seed(k)
    x, weight = (torch.randn(n, k, generator=generator).to(dtype) for n in (5, 4))
    bias = torch.randn(4, generator=generator).to(dtype)
    expected = linear(x, weight, bias, tp_segments=8)
    for ranks in RANKS:
        same_bits(over_ranks(x, weight, bias, ranks), expected)


def test_adding_up_the_ranks_of_one_long_chain_would_not() -> None:
    """The control: partial sums of the plain order differ from the whole."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(16, 64, generator=generator) for _ in range(2))
    halves = [linear(x[:, part], weight[:, part]) for part in (slice(0, 32), slice(32, 64))]
    assert not torch.equal(halves[0] + halves[1], linear(x, weight))


def test_a_row_has_the_same_bits_in_every_batch(rows_independent: Callable[..., None]) -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    rows_independent(lambda rows: linear(rows, weight, tp_segments=8), x)


def test_other_numbers_of_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks = 3"):
        rank_partial(torch.ones(1, 8), torch.ones(1, 8), 3)
