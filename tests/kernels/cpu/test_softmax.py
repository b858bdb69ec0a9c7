"""softmax family, forward and backward: the bits of the reference on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import softmax
from driftscope_kernels.reference import softmax as reference
from driftscope_kernels.registry import DTYPES

OPS = ("softmax", "log_softmax", "logsumexp")
Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 700])
def test_equals_the_reference(
    op: str, n: int, dtype: torch.dtype, isas: tuple[str, ...], bits: Bits, wide: Wide
) -> None:
    for seed, kind in enumerate(("wide", "special", "tiny")):
        x = wide((9, n), dtype, seed, kind)
        x[3], x[4, 0] = -float("inf"), float("inf")
        expected = getattr(reference, op)(x, -1)
        dy = wide(tuple(expected.shape), dtype, seed + 100)
        slope = getattr(reference, f"{op}_backward")(dy, x, -1)
        for isa in isas:
            y = getattr(softmax, op)(x, -1, isa=isa)
            assert bits(y).equal(bits(expected)), (isa, kind)
            dx = getattr(softmax, f"{op}_backward")(dy, x, -1, isa=isa)
            assert bits(dx).equal(bits(slope)), (isa, kind)


@pytest.mark.parametrize("op", OPS)
def test_any_dimension_and_stride(op: str, isa: str, bits: Bits, wide: Wide) -> None:
    x = wide((3, 5, 21), torch.float32, 0).transpose(0, 2)
    for dim in range(3):
        y, expected = getattr(softmax, op)(x, dim, isa=isa), getattr(reference, op)(x, dim)
        assert y.shape == expected.shape
        assert bits(y).equal(bits(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_same_bits_alone_and_in_any_batch(
    op: str, dtype: torch.dtype, bits: Bits, wide: Wide
) -> None:
    run: Any = getattr(softmax, op)
    x = wide((64, 211), dtype, 5)
    whole = run(x, -1)
    for row in (0, 1, 31, 63):
        assert bits(run(x[row : row + 1], -1)).equal(bits(whole[row : row + 1]))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert bits(run(x[order], -1)).equal(bits(whole[order]))


@pytest.mark.parametrize("op", OPS)
def test_float32_result_of_a_shorter_dtype(op: str, isa: str, bits: Bits, wide: Wide) -> None:
    x = wide((4, 50), torch.bfloat16, 1)
    y = getattr(softmax, op)(x, -1, out_dtype=torch.float32, isa=isa)
    assert y.dtype == torch.float32
    assert bits(y).equal(bits(getattr(reference, op)(x, -1, out_dtype=torch.float32)))
