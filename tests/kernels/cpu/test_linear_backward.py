"""Weight and bias gradients: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import linear
from driftscope_kernels.reference import linear as reference
from driftscope_kernels.registry import DTYPES

Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 63, 64, 130])
def test_equals_the_reference(
    rows: int, dtype: torch.dtype, isas: tuple[str, ...], bits: Bits, wide: Wide
) -> None:
    for seed, kind in enumerate(("wide", "special")):
        dy, x = wide((rows, 19), dtype, seed, kind), wide((rows, 23), dtype, seed + 9, kind)
        for carry in (None, wide((19, 23), torch.float32, 3)):
            expected = bits(reference.linear_weight_grad(dy, x, carry))
            for isa in isas:
                dweight = linear.linear_weight_grad(dy, x, carry, isa=isa)
                assert bits(dweight).equal(expected), (isa, kind, carry is None)
        for carry in (None, wide((19,), torch.float32, 3)):
            expected = bits(reference.linear_bias_grad(dy, carry))
            for isa in isas:
                dbias = linear.linear_bias_grad(dy, carry, isa=isa)
                assert bits(dbias).equal(expected), (isa, kind, carry is None)


def test_carry_of_one_part_into_the_next_gives_the_whole(bits: Bits, wide: Wide) -> None:
    dy, x = wide((192, 19), torch.bfloat16, 0), wide((192, 23), torch.bfloat16, 1)
    whole = linear.linear_weight_grad(dy, x)
    carry = None
    for part in (slice(0, 64), slice(64, 192)):
        carry = linear.linear_weight_grad(dy[part], x[part], carry)
    assert carry is not None
    assert bits(carry).equal(bits(whole))
