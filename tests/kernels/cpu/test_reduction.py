"""sum and mean: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import reduction
from driftscope_kernels.reference import reduction as reference
from driftscope_kernels.registry import DTYPES

Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@pytest.mark.parametrize("op", ["sum", "mean"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (4, 17), (7, 500), (5, 3, 18)])
def test_equals_the_reference(
    op: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    isas: tuple[str, ...],
    bits: Bits,
    wide: Wide,
) -> None:
    for seed, kind in enumerate(("wide", "special")):
        x = wide(shape, dtype, seed, kind)
        for dims in [(d,) for d in range(len(shape))] + [tuple(range(len(shape)))]:
            expected = getattr(reference, op)(x, dims)
            for isa in isas:
                y = getattr(reduction, op)(x, dims, isa=isa)
                assert y.shape == expected.shape, (isa, kind, dims)
                assert bits(y).equal(bits(expected)), (isa, kind, dims)


@pytest.mark.parametrize("op", ["sum", "mean"])
def test_strides_play_no_part(op: str, isa: str, bits: Bits, wide: Wide) -> None:
    x = wide((40, 33), torch.float32, 2)
    column_major = x.t().contiguous().t()
    assert column_major.stride() != x.stride()
    run = getattr(reduction, op)
    assert bits(run(column_major, (1,), isa=isa)).equal(bits(run(x, (1,), isa=isa)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_alone_and_in_any_batch(dtype: torch.dtype, bits: Bits, wide: Wide) -> None:
    x = wide((67, 211), dtype, 5)
    whole = reduction.mean(x, (1,))
    for row in (0, 1, 2, 3, 4, 33, 66):
        assert bits(reduction.mean(x[row : row + 1], (1,))).equal(bits(whole[row : row + 1]))


def test_the_sign_of_a_zero_is_kept(isa: str, bits: Bits) -> None:
    """A mean that underflows is a zero with the sign of the sum."""
    x = torch.tensor([[-1e-45, 0.0, 0.0, 0.0]])
    y = reduction.mean(x, (1,), isa=isa)
    assert bits(y).equal(bits(reference.mean(x, (1,))))
    assert torch.signbit(y).all()
