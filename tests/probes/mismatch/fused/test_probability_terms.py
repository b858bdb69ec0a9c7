from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf  # type: ignore[import-untyped]
from numba import njit

from driftscope_probes.mismatch.fused.probability_terms import ProbabilityTerms, probability_terms
from driftscope_probes.mismatch.fused.ratio_terms import ratio_terms
from driftscope_probes.mismatch.number import FloatArray

# Where one probability is clamped at 1e-6 and the other is not, the binary KL is 1e-6 times a
# difference of two numbers near 14: that leaves this much, in nats.
CLAMPED_ABSOLUTE = 1e-15
# Relative: of a Δ of some 30 nats, subtracting rounds away half a unit in the last place, 3.6e-15.
PROBABILITIES = 1e-14


@njit  # type: ignore[untyped-decorator]
def of_values(rollout: FloatArray, trainer: FloatArray) -> FloatArray:
    found = np.empty((5, rollout.size))
    for i in range(rollout.size):
        ratio = ratio_terms(trainer[i] - rollout[i])
        terms = probability_terms(
            rollout[i], trainer[i], ratio.shrink, ratio.shortfall, ratio.kl_k3
        )
        for j in range(5):
            found[j, i] = terms[j]
    return found


def exact(rollout: float, trainer: float) -> ProbabilityTerms:
    first, second = mp.exp(mpf(rollout)), mp.exp(mpf(trainer))
    clamp = mpf(10) ** -6
    p, q = (max(min(value, 1 - clamp), clamp) for value in (first, second))
    binary = p * mp.log(p / q) + (1 - p) * mp.log((1 - p) / (1 - q))
    return ProbabilityTerms(first, second, abs(second - first), second - first, binary)


def batch(seed: int) -> tuple[FloatArray, FloatArray]:
    """Near 1 and near 0, close and far, with exact zeros and both clamps crossed."""
    rng = np.random.default_rng(seed)
    rollout = -(10.0 ** rng.uniform(-8, 1.4, 600))
    spread = 10.0 ** rng.uniform(-9, 1, 600) * rng.normal(size=600)
    trainer = np.minimum(rollout * (1 + spread), 0.0)
    trainer[::50] = rollout[::50]
    return rollout, trainer


@pytest.mark.parametrize("seed", range(2))
def test_every_term_against_eighty_digits(seed: int) -> None:
    rollout, trainer = batch(seed)
    found = of_values(rollout, trainer)
    with mp.workdps(80):
        for place, (r, t) in enumerate(zip(rollout.tolist(), trainer.tolist(), strict=True)):
            *probabilities, binary = exact(r, t)
            for of, term in zip(found[:4, place].tolist(), probabilities, strict=True):
                assert of == pytest.approx(float(term), rel=PROBABILITIES, abs=0), (r, t)
            assert found[4, place] == pytest.approx(
                float(binary), rel=1e-12, abs=CLAMPED_ABSOLUTE
            ), (r, t)
            assert found[4, place] >= 0


def test_equal_sides_give_equal_bits_and_nothing_else() -> None:
    rollout = np.array([0.0, -1e-9, -0.3, -13.0, -30.0, -800.0])
    found = of_values(rollout, rollout.copy())
    assert found[0].tolist() == found[1].tolist()
    assert not found[2:].any()
