from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.contract import bounds
from driftscope_kernels.options import VLLM, SwigluOptions
from driftscope_kernels.reference.swiglu import swiglu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from((SwigluOptions("rounded"), SwigluOptions("float32"))),
    st.sampled_from((1.0, 40.0)),
    st.integers(0, 2**32),
)
def test_within_its_bound(
    dtype: torch.dtype, options: SwigluOptions, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    gate, up = ((torch.randn(40, generator=generator) * scale).to(dtype) for _ in range(2))
    y = swiglu(gate, up, options=options)
    exact = gate.double() * torch.sigmoid(gate.double()) * up.double()
    assert ((y.double() - exact).abs() <= bounds.swiglu(gate, up)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_has_the_same_bits_in_every_batch(
    dtype: torch.dtype, rows_independent: Callable[..., None]
) -> None:
    both = torch.randn(4, 34, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows_independent(lambda rows: swiglu(*rows.chunk(2, dim=1), options=VLLM.swiglu), both)


def test_rounding_silu_moves_bits_in_sixteen_bits() -> None:
    generator = torch.Generator().manual_seed(1)
    gate, up = (torch.randn(500, generator=generator).bfloat16() for _ in range(2))
    rounded, unrounded = (
        swiglu(gate, up, options=SwigluOptions(silu)) for silu in ("rounded", "float32")
    )
    assert not torch.equal(rounded, unrounded)
    # torch rounds silu to the dtype, too; its exponential may differ in the last float32 bit.
    theirs = torch.nn.functional.silu(gate) * up
    assert (rounded == theirs).float().mean() > 0.99


def test_special_values_are_those_of_torch() -> None:
    gate = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), -200.0, 200.0])
    y = swiglu(gate, torch.ones(7), options=VLLM.swiglu)
    torch.testing.assert_close(y, torch.nn.functional.silu(gate), equal_nan=True)
