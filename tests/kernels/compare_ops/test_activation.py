from __future__ import annotations

from typing import get_args

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.compare_ops.activation import ACTIVATION
from driftscope_kernels.compare_ops.parameters import ActivationName, ActivationParameters
from driftscope_kernels.compare_ops.variant import Inputs

from . import row_ops

NAMES: tuple[ActivationName, ...] = get_args(ActivationName)
ORACLES = {
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "gelu_tanh": lambda x: (
        x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))
    ),
    "relu": lambda x: max(x, 0),
}


def _inputs(dtype: torch.dtype, seed: int, scale: float = 2.0, rows: int = 40) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    gate, up = (scale * torch.randn(rows, 64, generator=generator) for _ in range(2))
    return row_ops.packed({"gate": gate.to(dtype), "up": up.to(dtype)}, rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_the_formula(name: ActivationName) -> None:
    inputs = _inputs(torch.float32, 1)
    (out,) = ACTIVATION.reference(inputs, ActivationParameters(name))
    with mpmath.workdps(40):
        for feature in range(12):
            gate, up = float(inputs["gate"][5, feature]), float(inputs["up"][5, feature])
            expected = float(ORACLES[name](mpmath.mpf(gate)) * up)
            # Float64 loses the relative precision of a gelu near zero, as float32 does.
            assert float(out[5, feature]) == pytest.approx(expected, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**20), magnitude=st.integers(-10, 6))
def test_variants_are_rounding(
    name: ActivationName, dtype: torch.dtype, seed: int, magnitude: int
) -> None:
    inputs = _inputs(dtype, seed, 2.0**magnitude)
    row_ops.check_variants(ACTIVATION, ActivationParameters(name), inputs, dtype)


@pytest.mark.parametrize("dtype", row_ops.NARROW)
def test_every_difference_shows(dtype: torch.dtype) -> None:
    for name in NAMES:
        inputs = _inputs(dtype, 3, rows=2000)
        same = row_ops.same_as_plain(ACTIVATION, ActivationParameters(name), inputs, dtype)
        # A primitive moves the last of 24 bits, which 8 or 11 keep in few of 128,000 elements.
        assert same <= {"sigmoid", "exp", "exact", "formula"}, name
        wide = _inputs(torch.float32, 3, rows=2000)
        same = row_ops.same_as_plain(ACTIVATION, ActivationParameters(name), wide, torch.float32)
        assert not same & {"sigmoid", "exact", "formula"}, name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_no_fault_is_taken_for_rounding(name: ActivationName, dtype: torch.dtype) -> None:
    inputs = _inputs(dtype, 4)
    assert (
        set(row_ops.faults_within(ACTIVATION, ActivationParameters(name), inputs, dtype)) == set()
    )


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_activations_of_transformers(dtype: torch.dtype) -> None:
    from transformers.activations import ACT2FN

    inputs = _inputs(dtype, 5, rows=400)
    for name in NAMES:
        plain = ACTIVATION.variants(ActivationParameters(name))[0]
        theirs = (
            ACT2FN[name.replace("tanh", "pytorch_tanh")](inputs["gate"][None])[0] * inputs["up"]
        )
        assert row_ops.equals(plain.run(inputs, ActivationParameters(name), dtype), (theirs,))
