from __future__ import annotations

import math

import numpy as np
import pytest
from mpmath import mp, mpf  # type: ignore[import-untyped]
from numba import njit

from driftscope_probes.mismatch.fused.ratio_terms import RatioTerms, ratio_terms
from driftscope_probes.mismatch.number import FloatArray

# Relative. k3 subtracts 1 + Δ beyond ½ ln 2, which costs it some units in the last place.
BOUND = 4e-15


@njit  # type: ignore[untyped-decorator]
def of_values(values: FloatArray) -> FloatArray:
    found = np.empty((9, values.size))
    for i in range(values.size):
        terms = ratio_terms(values[i])
        for j in range(9):
            found[j, i] = terms[j]
    return found


def exact(value: float) -> RatioTerms:
    diff = mpf(value)
    ratio, clamped = mp.exp(diff), max(min(diff, mpf(20)), mpf(-20))
    return RatioTerms(
        ratio,
        mp.exp(abs(diff)),
        mp.exp(-abs(diff)),
        -mp.expm1(-abs(diff)),
        mp.expm1(diff),
        mp.expm1(diff) - diff,
        mp.expm1(-diff) + diff,
        2 * mp.log(mp.cosh(diff / 2)),
        mp.expm1(2 * clamped),
    )


def test_every_term_from_tiny_to_huge_differences() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=800) * 10.0 ** rng.uniform(-12, 2.5, 800)
    values = np.concatenate([values, [20.5, -20.5, 599.0, 601.0, -601.0, 0.35, -0.35]])
    values = values[np.abs(values) < 700]
    found = of_values(values)
    with mp.workdps(80):
        for place, value in enumerate(values.tolist()):
            for name, term, of in zip(
                RatioTerms._fields, exact(value), found[:, place].tolist(), strict=True
            ):
                assert of == pytest.approx(float(term), rel=BOUND, abs=0), (name, value)


def test_zero_is_exact() -> None:
    (terms,) = of_values(np.array([0.0])).T.tolist()
    assert terms == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [709.4, 1e4, 1e300])
def test_overflow_is_infinite_on_the_side_that_overflows(size: float) -> None:
    rises, falls = (RatioTerms(*of.tolist()) for of in of_values(np.array([size, -size])).T)
    assert (rises.ratio, rises.kl_k3, falls.kl_reverse_k3) == (math.inf,) * 3
    assert (falls.ratio, falls.excess) == (0.0, -1.0)
    assert falls.kl_k3 == pytest.approx(size - 1, rel=1e-15)
    assert rises.double_js == falls.double_js == pytest.approx(size - math.log(4), rel=1e-15)
    assert rises.chi2 == pytest.approx(math.expm1(40), rel=1e-14)
