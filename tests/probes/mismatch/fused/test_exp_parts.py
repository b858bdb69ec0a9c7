from __future__ import annotations

import math

import numpy as np
from mpmath import mp, mpf  # type: ignore[import-untyped]
from numba import njit

from driftscope_probes.mismatch.fused.exp_log import OVERFLOWS_ABOVE, exp_and_expm1
from driftscope_probes.mismatch.number import FloatArray

# In units in the last place of float64, stated in exp_parts.py.
ULP_BOUND = 2.0


@njit  # type: ignore[untyped-decorator]
def of_values(values: FloatArray) -> FloatArray:
    found = np.empty((2, values.size))
    for i in range(values.size):
        found[0, i], found[1, i] = exp_and_expm1(values[i])
    return found


def ulps_off(found: float, exact: mpf) -> float:
    return float(abs(mpf(found) - exact) / mpf(math.ulp(float(exact))))


def test_within_two_units_in_the_last_place() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=1500) * 10.0 ** rng.uniform(-12, 2, 1500)
    values = np.concatenate([values, [0.5 * math.log(2), -0.5 * math.log(2), 709.0, -708.0]])
    values = values[np.abs(values) < 709]
    exps, expm1s = of_values(values)
    with mp.workdps(60):
        for value, exp, expm1 in zip(values.tolist(), exps, expm1s, strict=True):
            assert ulps_off(exp, mp.exp(mpf(value))) < ULP_BOUND, value
            assert ulps_off(expm1, mp.expm1(mpf(value))) < ULP_BOUND, value


def test_ends_of_the_range_are_limits_not_nan() -> None:
    exps, expm1s = of_values(np.array([-1e300, 0.0, OVERFLOWS_ABOVE + 0.1, 1e300]))
    assert exps.tolist() == [0.0, 1.0, math.inf, math.inf]
    assert expm1s.tolist() == [-1.0, 0.0, math.inf, math.inf]
