"""Batched matrix product: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference.linear import bmm as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels.linear import bmm

INTERPRETED = True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    dtype: torch.dtype, same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    a, b = numbers(3, 5, 17, dtype=dtype, seed=1), numbers(3, 17, 4, dtype=dtype, seed=2)
    same_bits(bmm(a, b, dot="in_order"), reference(a, b))
    same_bits(bmm(a[1:2], b[1:2], dot="in_order"), reference(a, b)[1:2])
    wide = bmm(a, b, out_dtype=torch.float32, dot="in_order")
    same_bits(wide, reference(a, b, out_dtype=torch.float32))
