from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.binary_kl_terms import HIGHEST, LOWEST, binary_kl_terms


def plain_definition(rollout: float, trainer: float) -> float:
    """p ln(p/q) + (1−p) ln((1−p)/(1−q)) as it is written, which needs the digits."""
    with localcontext(prec=90):
        first = Decimal(min(max(rollout, LOWEST), HIGHEST))
        second = Decimal(min(max(trainer, LOWEST), HIGHEST))
        p, q = first.exp(), second.exp()
        return float(p * (first - second) + (1 - p) * ((1 - p) / (1 - q)).ln())


@given(st.floats(-30, 0), st.one_of(st.floats(-1e-4, 1e-4), st.floats(-20, 20)))
def test_equal_to_ninety_digits(rollout: float, diff: float) -> None:
    trainer = rollout + diff
    (found,) = binary_kl_terms(np.array([rollout]), np.array([trainer]))
    expected = plain_definition(rollout, trainer)
    # The clamped log-probabilities differ by a rounding of the subtraction: 1e-16 nats.
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-20)
    assert found >= 0


def test_both_clamps_hold() -> None:
    found = binary_kl_terms(np.array([-1e9, 0.0, 5.0]), np.array([-20.0, -1e-9, 0.0]))
    assert found.tolist() == [0.0, 0.0, 0.0]
    certain = binary_kl_terms(np.array([0.0]), np.array([-1e9]))[0]
    assert certain == pytest.approx(plain_definition(0.0, -1e9), rel=1e-12)
