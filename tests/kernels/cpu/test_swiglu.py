"""SwiGLU, forward and backward: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import swiglu
from driftscope_kernels.options import SwigluOptions
from driftscope_kernels.reference import swiglu as reference
from driftscope_kernels.registry import DTYPES

Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("silu", ["rounded", "float32"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 16), (2, 5, 37)])
def test_equals_the_reference(
    silu: Literal["rounded", "float32"],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    isas: tuple[str, ...],
    bits: Bits,
    wide: Wide,
) -> None:
    options = SwigluOptions(silu=silu)
    for seed, kind in enumerate(("wide", "special", "tiny")):
        gate, up, dy = (wide(shape, dtype, 10 * seed + i, kind) for i in range(3))
        expected = [
            reference.swiglu(gate, up, options=options),
            *reference.swiglu_backward(dy, gate, up, options=options),
        ]
        for isa in isas:
            results = [
                swiglu.swiglu(gate, up, options=options, isa=isa),
                *swiglu.swiglu_backward(dy, gate, up, options=options, isa=isa),
            ]
            same = [bits(a).equal(bits(b)) for a, b in zip(results, expected, strict=True)]
            assert all(same), (isa, kind, same)


def test_halves_of_one_tensor(isa: str, bits: Bits, wide: Wide) -> None:
    gate, up = wide((6, 80), torch.bfloat16, 3).chunk(2, dim=-1)
    options = SwigluOptions()
    y = swiglu.swiglu(gate, up, options=options, isa=isa)
    assert bits(y).equal(bits(reference.swiglu(gate, up, options=options)))
