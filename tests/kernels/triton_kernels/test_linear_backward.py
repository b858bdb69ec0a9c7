"""Gradients of weight and bias of the linear layer: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference import linear as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels import linear

INTERPRETED = True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    dtype: torch.dtype, same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    dy, x = numbers(69, 9, dtype=dtype, seed=1), numbers(69, 11, dtype=dtype, seed=2)
    carry = numbers(9, 11, dtype=torch.float32, seed=3)
    for start in (None, carry):
        found = linear.linear_weight_grad(dy, x, start, dot="in_order")
        same_bits(found, reference.linear_weight_grad(dy, x, start))
    same_bits(linear.linear_bias_grad(dy), reference.linear_bias_grad(dy))
    row = carry[:, 0]
    found = linear.linear_bias_grad(dy, row)
    same_bits(found, reference.linear_bias_grad(dy, row))
