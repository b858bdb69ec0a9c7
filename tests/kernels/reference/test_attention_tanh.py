from __future__ import annotations

import numpy as np
import pytest

from driftscope_kernels.reference.attention_tanh import THRESHOLD, tanh


@pytest.mark.parametrize("exponent", [-120, -40, -12, -6, -3, -1, 0, 1, 2, 3, 5])
def test_within_two_ulp(exponent: int) -> None:
    x = (np.random.default_rng(exponent + 200).uniform(1, 2, 20000) * 2.0**exponent).astype(
        np.float32
    )
    exact = np.tanh(x.astype(np.float64))
    step = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(tanh(x) - exact) <= 2 * step).all()
    assert (tanh(-x) == -tanh(x)).all()


def test_no_step_where_the_two_formulas_meet() -> None:
    around = THRESHOLD + np.arange(-50, 51).astype(np.float32) * np.spacing(THRESHOLD)
    assert (np.abs(np.diff(tanh(around))) <= 4 * np.spacing(np.float32(0.5))).all()


def test_special_values() -> None:
    x = np.array([np.inf, -np.inf, 0.0, -0.0, np.nan, 3e38], np.float32)
    y = tanh(x)
    assert y[[0, 1, 5]].tolist() == [1, -1, 1]
    assert np.signbit(y[2:4]).tolist() == [False, True] and (y[2:4] == 0).all()
    assert np.isnan(y[4])
