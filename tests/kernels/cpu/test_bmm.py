"""The fast batched product: the reference's bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.cpu.linear import bmm, linear
from driftscope_kernels.reference.linear import bmm as reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(0, top) for top in (5, 15, 40, 50))),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    out_dtype=st.sampled_from([None, torch.float32]),
    kind=st.sampled_from(["wide", "tiny", "special"]),
    transposed=st.tuples(st.booleans(), st.booleans()),
)
def test_bmm_has_the_bits_of_the_reference(
    isa: str,
    bits: Callable[[Tensor], Tensor],
    wide: Callable[..., Tensor],
    sizes: tuple[int, int, int, int],
    seed: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
    kind: str,
    transposed: tuple[bool, bool],
) -> None:
    batch, m, k, n = sizes
    a, b = wide((batch, m, k), dtype, seed, kind), wide((batch, k, n), dtype, seed + 1, kind)
    a = a.mT.contiguous().mT if transposed[0] else a
    b = b.mT.contiguous().mT if transposed[1] else b
    got = bmm(a, b, out_dtype=out_dtype, isa=isa)
    assert torch.equal(bits(got), bits(reference(a, b, out_dtype=out_dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_its_linear_layers(dtype: torch.dtype, wide: Callable[..., Tensor]) -> None:
    a, b = wide((20, 30, 64), dtype, 1), wide((20, 64, 70), dtype, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        got = bmm(a, b)
    finally:
        torch.set_num_threads(before)
    for i in range(20):
        assert torch.equal(got[i], linear(a[i], b[i].t()))


def test_shapes_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, K, N\]"):
        bmm(torch.ones(2, 3, 4), torch.ones(2, 5, 6))
    with pytest.raises(TypeError, match="one dtype"):
        bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 6).half())
