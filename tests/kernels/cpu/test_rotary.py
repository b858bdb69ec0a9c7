"""Rotary embedding: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.cpu.rotary import ARITHMETIC, rotary
from driftscope_kernels.options import RotaryOptions
from driftscope_kernels.reference.rotary import rotary as reference
from driftscope_kernels.registry import DTYPES

OPTIONS = [
    RotaryOptions(table=table, arithmetic=arithmetic)
    for table in ("rounded", "as_given")
    for arithmetic in ("fused", "unfused", "model_dtype")
]
Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("size", "half"), [(64, 32), (20, 10), (40, 9), (2, 1)])
def test_equals_the_reference(
    size: int,
    half: int,
    interleaved: bool,
    dtype: torch.dtype,
    options: RotaryOptions,
    isas: tuple[str, ...],
    bits: Bits,
    wide: Wide,
) -> None:
    for seed, kind in enumerate(("wide", "special")):
        x = wide((2, 3, 4, size), dtype, seed, kind)
        angle = torch.rand((3, half), generator=torch.Generator().manual_seed(seed)) * 100
        args = (x, angle.cos(), angle.sin())
        expected = bits(reference(*args, interleaved=interleaved, options=options))
        for isa in isas:
            y = rotary(*args, interleaved=interleaved, options=options, isa=isa)
            assert bits(y).equal(expected), (isa, kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_within_a_wider_row_are_read_where_they_are(
    dtype: torch.dtype, isa: str, bits: Bits, wide: Wide
) -> None:
    """As an engine has them: queries beside keys and values."""
    operators = chosen(isa)
    if operators is None:
        pytest.skip("the portable way takes any strides")
    heads = wide((5, 7 * 20), dtype, 0, "wide")[:, 20:100].view(5, 4, 20)
    angle = torch.rand((5, 10), generator=torch.Generator().manual_seed(0)) * 100
    tables = (angle.cos(), angle.sin())
    y = operators.rotary.default(heads, *tables, False, ARITHMETIC["fused"], isa)
    options = RotaryOptions(table="as_given")
    assert bits(y).equal(bits(reference(heads, *tables, options=options)))
