"""Counts against the cast to float16 itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.trainer.half_precision_range import (
    BLOCK,
    FP16_MAX,
    NORMAL_FROM,
    OVERFLOW_FROM,
    VANISHES_UP_TO,
    HalfPrecisionRange,
    add_values,
)

EDGES = [
    edge
    for limit in (OVERFLOW_FROM, NORMAL_FROM, VANISHES_UP_TO, FP16_MAX, 2.0**-14, 2.0**-24)
    for edge in (
        math.nextafter(limit, 0.0),
        limit,
        float(torch.nextafter(torch.tensor(limit), torch.tensor(0.0))),
        float(torch.nextafter(torch.tensor(limit), torch.tensor(math.inf))),
    )
]
floats = st.floats(width=32, allow_nan=False) | st.sampled_from([*EDGES, 0.0, 2.0**-41, 1e-30])


@given(values=st.lists(floats, min_size=1, max_size=60), scale=st.sampled_from([1.0, 65_536.0]))
def test_counts_are_those_of_the_cast(values: list[float], scale: float) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    measured = HalfPrecisionRange(scale)
    add_values(tensor, measured)
    # float64: the product with 65,536 may leave float32's range.
    half = (tensor.double() * scale).to(torch.float32).to(torch.float16).abs()
    assert measured.values == int((tensor != 0).sum())
    assert measured.overflow == int(torch.isinf(half).sum())
    assert measured.underflow == int(((half == 0) & (tensor != 0)).sum())
    assert measured.subnormal == int(((half > 0) & (half < 2.0**-14)).sum())
    assert measured.largest == pytest.approx(float(tensor.double().abs().max()) * scale)


def test_nan_counts_as_overflow_and_has_no_maximum() -> None:
    measured = HalfPrecisionRange()
    add_values(torch.tensor([1.0, float("nan"), -3.0]), measured)
    assert measured.overflow == 1
    shown = measured.to_dict("x")
    assert shown["x_max"] is None
    assert shown["x_overflow_share"] == pytest.approx(1 / 3)


def test_zeros_are_no_underflow() -> None:
    measured = HalfPrecisionRange()
    add_values(torch.tensor([0.0, -0.0, 1e-9]), measured)
    assert (measured.values, measured.underflow) == (1, 1)


def test_nothing_seen_gives_shares_of_zero() -> None:
    measured = HalfPrecisionRange()
    add_values(torch.zeros(0), measured)
    assert set(measured.to_dict("x").values()) == {0.0}


def test_several_tensors_and_several_ranges_add_up() -> None:
    plain, scaled = HalfPrecisionRange(), HalfPrecisionRange(65_536.0)
    tensor = torch.cat([torch.full((BLOCK,), 1e-8), torch.full((5,), 2.0)])
    add_values(tensor, plain, scaled)
    add_values(torch.tensor([[3.0]], dtype=torch.bfloat16), plain, scaled)
    assert (plain.values, plain.underflow, plain.largest) == (BLOCK + 6, BLOCK, 3.0)
    assert (scaled.underflow, scaled.overflow) == (0, 6)
