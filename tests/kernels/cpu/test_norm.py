"""RMSNorm, forward and backward: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import norm
from driftscope_kernels.options import NormOptions
from driftscope_kernels.reference import norm as reference
from driftscope_kernels.registry import DTYPES

OPTIONS = [
    NormOptions(weight_multiply=multiply, norm_reads=reads)
    for multiply in ("after_cast", "before_cast")
    for reads in ("float32_sum", "rounded_sum")
]
EPS = 1e-5
Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 16, 23, 576])
def test_equals_the_reference(
    k: int,
    dtype: torch.dtype,
    options: NormOptions,
    isas: tuple[str, ...],
    bits: Bits,
    wide: Wide,
) -> None:
    for seed, kind in enumerate(("wide", "special")):
        x, residual, dy, dtotal = (wide((7, k), dtype, 10 * seed + i, kind) for i in range(4))
        weight = wide((k,), dtype, seed + 50)
        forward, backward = (x, residual, weight, EPS), (dy, dtotal, x, residual, weight, EPS)
        expected = [
            reference.rms_norm(x, weight, EPS, options=options),
            *reference.add_rms_norm(*forward, options=options),
            *reference.add_rms_norm_backward(*backward, options=options),
        ]
        for isa in isas:
            results = [
                norm.rms_norm(x, weight, EPS, options=options, isa=isa),
                *norm.add_rms_norm(*forward, options=options, isa=isa),
                *norm.add_rms_norm_backward(*backward, options=options, isa=isa),
            ]
            same = [bits(a).equal(bits(b)) for a, b in zip(results, expected, strict=True)]
            assert all(same), (isa, kind, same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 64, 65, 200])
def test_gradients_equal_the_reference_over_blocks_of_rows(
    rows: int, dtype: torch.dtype, isas: tuple[str, ...], bits: Bits, wide: Wide
) -> None:
    x, dy = wide((rows, 40), dtype, 1), wide((rows, 40), dtype, 2)
    weight, carry = wide((40,), dtype, 3), wide((40,), torch.float32, 4)
    options = NormOptions()
    for start in (None, carry):
        more: dict[str, Any] = {"options": options, "carry": start}
        expected = reference.rms_norm_backward(dy, x, weight, EPS, **more)
        for isa in isas:
            results = norm.rms_norm_backward(dy, x, weight, EPS, **more, isa=isa)
            same = [bits(a).equal(bits(b)) for a, b in zip(results, expected, strict=True)]
            assert all(same), (isa, start is carry, same)


def test_carry_is_left_as_it_was(wide: Wide) -> None:
    carry = wide((40,), torch.float32, 4)
    before = carry.clone()
    x, weight = wide((3, 40), torch.float32, 1), wide((40,), torch.float32, 3)
    norm.rms_norm_backward(x, x, weight, EPS, options=NormOptions(), carry=carry)
    assert carry.equal(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_alone_and_in_any_batch(dtype: torch.dtype, bits: Bits, wide: Wide) -> None:
    x, weight = wide((65, 211), dtype, 5), wide((211,), dtype, 6)
    whole = norm.rms_norm(x, weight, EPS, options=NormOptions())
    for row in (0, 1, 31, 64):
        alone = norm.rms_norm(x[row : row + 1], weight, EPS, options=NormOptions())
        assert bits(alone).equal(bits(whole[row : row + 1]))


def test_rows_with_gaps_between_them(isa: str, bits: Bits, wide: Wide) -> None:
    x, weight = wide((5, 300), torch.bfloat16, 5)[:, 7:60], wide((53,), torch.bfloat16, 6)
    y = norm.rms_norm(x, weight, EPS, options=NormOptions(), isa=isa)
    assert bits(y).equal(bits(reference.rms_norm(x, weight, EPS, options=NormOptions())))
