from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


def reverse_k3(diff: Decimal) -> Decimal:
    return (-diff).exp() + diff - 1


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_sixty_digits(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    with localcontext(prec=60):
        diffs = [Decimal(t) - Decimal(r) for sequence in plain(pair) for _, r, t in sequence]
        reverse = float(sum(map(reverse_k3, diffs)) / len(diffs))
        unbiased = float(sum(d.exp() * d for d in diffs) / len(diffs))
    found = compared(pair)
    assert found["kl_reverse_k3"] == pytest.approx(reverse, rel=1e-12)
    assert found["kl_reverse_unbiased"] == pytest.approx(unbiased, rel=1e-9, abs=1e-18)


def test_it_explodes_where_the_forward_kl_does_not() -> None:
    found = compare(np.array([-5.0]), np.array([-15.0]), [0, 1], resamples=0)
    assert found.value("kl_k3") == pytest.approx(9.0000454)
    assert found.value("kl_reverse_k3") == pytest.approx(22015.4658)


def test_the_unbiased_estimator_meets_the_kl_of_two_known_distributions() -> None:
    rollout, trainer = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    truth = float(np.sum(trainer * np.log(trainer / rollout)))
    # Ten tokens in exactly the rollout's proportions: an expectation without sampling noise.
    drawn = np.repeat(np.arange(3), [5, 3, 2])
    found = compare(np.log(rollout[drawn]), np.log(trainer[drawn]), [0, 10], resamples=0)
    assert found.value("kl_reverse_unbiased") == pytest.approx(truth, rel=1e-12)
    assert found.value("kl_reverse_k3") != pytest.approx(truth, rel=0.01)
