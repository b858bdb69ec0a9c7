"""sum and mean: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference import reduction as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels import reduction

INTERPRETED = True


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    name: str, dtype: torch.dtype, same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x = numbers(4, 19, 6, dtype=dtype, seed=1)
    function, expected = getattr(reduction, name), getattr(reference, name)
    for dims in ((0,), (0, 2), (2, 1), (0, 1, 2)):
        same_bits(function(x, dims), expected(x, dims))
    same_bits(function(x, (1,), keepdim=True), expected(x, (1,), keepdim=True))
    wide = function(x, (1,), out_dtype=torch.float32)
    same_bits(wide, expected(x, (1,), out_dtype=torch.float32))
    special = numbers(9, 33, dtype=dtype, seed=2, special=True)
    same_bits(function(special, (1,)), expected(special, (1,)))


def test_sum_and_mean_of_nothing(same_bits: Callable[..., None]) -> None:
    nothing = torch.empty(3, 0)
    same_bits(reduction.sum(nothing, (1,)), reference.sum(nothing, (1,)))
    same_bits(reduction.mean(nothing, (1,)), reference.mean(nothing, (1,)))
    same_bits(reduction.sum(nothing, (0,)), reference.sum(nothing, (0,)))
