"""Gate and up side by side, as vLLM has them, through our SwiGLU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from driftscope_kernels.registry import DTYPES
from driftscope_kernels.vllm_plugin.activation import silu_and_mul


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2,), (3, 10), (2, 5, 74)])
def test_the_halves_are_gate_and_up(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    gate, up = x.chunk(2, dim=-1)
    y = silu_and_mul(x)
    assert y.shape == gate.shape and y.dtype == dtype
    expected = functional.silu(gate.double()) * up.double()
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    for row, expected_row in zip(x.view(-1, shape[-1]), y.view(-1, shape[-1] // 2), strict=True):
        assert silu_and_mul(row).equal(expected_row)
