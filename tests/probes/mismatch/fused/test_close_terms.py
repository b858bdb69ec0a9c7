from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf  # type: ignore[import-untyped]
from numba import njit

from driftscope_probes.mismatch.fused.close_sums import (
    CLOSE_DIFF,
    close_probability_terms,
    close_ratio_terms,
    is_close,
    larger_probability,
)
from driftscope_probes.mismatch.fused.probability_terms import CLAMP
from driftscope_probes.mismatch.number import FloatArray

BOUND = 4e-15  # relative, as for ratio_terms() and, of probabilities, half of what those are given
BINARY_KL = 1e-12  # relative, as for probability_terms()


@njit  # type: ignore[untyped-decorator]
def of_values(rollout: FloatArray, trainer: FloatArray) -> FloatArray:
    found = np.empty((11, rollout.size))
    for i in range(rollout.size):
        ratio = close_ratio_terms(trainer[i] - rollout[i])
        for j in range(6):
            found[j, i] = ratio[j]
        larger, rest = larger_probability(rollout[i], trainer[i])
        terms = close_probability_terms(
            trainer[i] > rollout[i], larger, rest, ratio.shortfall, ratio.even + ratio.odd
        )
        for j in range(5):
            found[6 + j, i] = terms[j]
    return found


@njit  # type: ignore[untyped-decorator]
def closeness(rollout: float, trainer: float) -> bool:
    return is_close(rollout, trainer)


def exact(rollout: float, trainer: float) -> list[float]:
    diff, p, q = mpf(trainer - rollout), mp.exp(mpf(rollout)), mp.exp(mpf(trainer))
    binary = p * mp.log(p / q) + (1 - p) * mp.log((1 - p) / (1 - q))
    terms = [
        diff * diff,
        mp.cosh(diff) - 1,
        mp.sinh(diff) - diff,
        mp.expm1(diff),
        -mp.expm1(-abs(diff)),
        2 * mp.log(mp.cosh(diff / 2)),
        p,
        q,
        abs(q - p),
        q - p,
        binary,
    ]
    return [float(term) for term in terms]


def test_every_term_against_eighty_digits() -> None:
    rng = np.random.default_rng(5)
    rollout = -(10.0 ** rng.uniform(-5.9, 1.13, 1500))
    spread = 10.0 ** rng.uniform(-8, 0, 1500) * rng.normal(size=1500)
    trainer = np.where(rng.random(1500) < 0.5, rollout * (1 + spread), rollout + spread)
    # Float32, as given arrays are: Δ is then exact, and rounding it is not part of a term.
    rollout, trainer = (a.astype(np.float32).astype(np.float64) for a in (rollout, trainer))
    close = np.array([closeness(r, t) for r, t in zip(rollout, trainer, strict=True)])
    rollout, trainer = rollout[close], trainer[close]
    assert rollout.size > 800
    found = of_values(rollout, trainer)
    with mp.workdps(80):
        for place, (r, t) in enumerate(zip(rollout.tolist(), trainer.tolist(), strict=True)):
            *terms, binary = exact(r, t)
            assert found[:-1, place].tolist() == pytest.approx(terms, rel=BOUND, abs=0), (r, t)
            assert found[-1, place] == pytest.approx(binary, rel=BINARY_KL, abs=0), (r, t)


def test_equal_sides_give_zeros_and_equal_probabilities() -> None:
    rollout = -np.array([2e-6, 1e-3, 0.5, 13.0])
    found = of_values(rollout, rollout.copy())
    assert not found[:6].any() and not found[8:].any()
    assert found[6].tolist() == found[7].tolist()


@pytest.mark.parametrize(
    ("rollout", "trainer", "close"),
    [
        (-1.0, -1.0, True),
        (-1.0, -1.0 - 0.99 * CLOSE_DIFF, True),
        (-1.0, -1.0 - 1.01 * CLOSE_DIFF, False),
        (-1.01 * CLAMP, -2 * CLAMP, True),
        (-0.99 * CLAMP, -2 * CLAMP, False),
        (-2 * CLAMP, 0.0, False),
        (-13.7, -13.8, True),
        (-13.7, -13.9, False),
    ],
)
def test_what_is_close(rollout: float, trainer: float, close: bool) -> None:
    assert closeness(rollout, trainer) is close
