"""The fused multiply-add against the contract's, the exponentials against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_kernels.compare_ops.exponentials import EXPONENTIALS, ExpName, fused
from driftscope_kernels.reference.arithmetic import fma

FLOATS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3)


@given(FLOATS)
def test_fused_rounds_once(numbers: list[float]) -> None:
    a, b, c = (np.array([number], np.float32) for number in numbers)
    ours = fused(*(torch.from_numpy(x) for x in (a, b, c))).numpy()
    np.testing.assert_array_equal(ours, fma(a, b, c))


def test_fused_decides_half_way_by_what_float64_cut_off() -> None:
    # 1 + 2^-24 lies half-way between two float32 numbers; 2^-60 more or less decides.
    a = torch.tensor([1 + 2.0**-23, 1.0, -1.0])
    b = torch.tensor([1 - 2.0**-24, 1.0, -1.0])
    c = torch.tensor([2.0**-60, 2.0**-24, 2.0**-24])
    expected = fma(a.numpy(), b.numpy(), c.numpy())
    np.testing.assert_array_equal(fused(a, b, c).numpy(), expected)
    near, tiny = torch.tensor([1 + 2.0**-12]), torch.tensor([2.0**-70])
    np.testing.assert_array_equal(
        fused(near, near, tiny).numpy(), fma(near.numpy(), near.numpy(), tiny.numpy())
    )


#: Units in the last place: exp2(x · log2 e) loses with the product's rounding, |x| times as much.
WORST = {"torch": 1.0, "u20": 20.0, "exp2": 64.0, "libm": 0.51, "driftscope": 1.0}


@pytest.mark.parametrize("name", EXPONENTIALS)
def test_exponentials_are_as_exact_as_they_say(name: ExpName) -> None:
    x = torch.linspace(-87.0, 0.0, 20_001)
    exact = x.double().exp()
    ulp = torch.finfo(torch.float32).eps * 2.0 ** exact.log2().floor()
    assert float(((EXPONENTIALS[name](x).double() - exact).abs() / ulp).max()) <= WORST[name]
    if name != "exp2":
        assert EXPONENTIALS[name](torch.tensor([-torch.inf, 0.0])).tolist() == [0.0, 1.0]
