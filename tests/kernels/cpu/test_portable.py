"""The linear layer without a C++ compiler: the reference's bits, alone and beside other rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu.portable import linear
from driftscope_kernels.cpu.portable_chain import PANEL
from driftscope_kernels.reference.linear import linear as reference
from driftscope_kernels.registry import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (PANEL - 1, 33), (PANEL, 2), (PANEL + 1, 257)])
def test_rows_have_the_bits_of_the_reference(
    n: int, k: int, dtype: torch.dtype, wide: Callable[..., Tensor], bits: Callable[..., Tensor]
) -> None:
    for seed, kind in enumerate(("wide", "special", "tiny")):
        x, weight = wide((3, k), dtype, seed, kind), wide((n, k), dtype, seed + 9, kind)
        initial = wide((3, n), torch.float32, seed + 5, kind)
        bias = wide((n,), dtype, seed + 7, kind)
        expected = reference(x, weight, bias, initial=initial)
        y = linear(x, weight, bias, initial, 1, dtype)
        assert bits(y).equal(bits(expected)), kind
        alone = linear(x[1:2], weight, bias, initial[1:2], 1, dtype)
        assert bits(alone).equal(bits(y[1:2])), kind
