from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from driftscope_kernels.contract import bounds
from driftscope_kernels.reference.linear import bmm, linear


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_each_matrix_is_a_linear_layer(dtype: torch.dtype, same_bits: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 4, 9, generator=generator).to(dtype)
    b = torch.randn(3, 9, 5, generator=generator).to(dtype)
    y = bmm(a, b)
    for i in range(3):
        same_bits(y[i], linear(a[i], b[i].T))
        error = (y[i].double() - a[i].double() @ b[i].double()).abs()
        assert (error <= bounds.linear(a[i], b[i].T)).all()
    same_bits(bmm(a[1:2], b[1:2]), y[1:2])


def test_an_empty_batch() -> None:
    assert bmm(torch.ones(0, 2, 3), torch.ones(0, 3, 4)).shape == (0, 2, 4)
