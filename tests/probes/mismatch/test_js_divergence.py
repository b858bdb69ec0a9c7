from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


def as_nemo_codes_it(rollout: float, trainer: float) -> Decimal:
    first, second = Decimal(trainer), Decimal(rollout)
    mixture = (first.exp() / 2 + second.exp() / 2).ln()
    a, b = first - mixture, second - mixture
    return (a.exp() - a - 1) / 2 + (b.exp() - b - 1) / 2


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_definition_in_sixty_digits(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    with localcontext(prec=60):
        terms = [as_nemo_codes_it(r, t) for sequence in plain(pair) for _, r, t in sequence]
        expected = float(sum(terms) / len(terms))
    assert compared(pair)["js_divergence"] == pytest.approx(expected, rel=1e-12)


def test_far_apart_it_grows_by_half_a_nat_per_nat() -> None:
    found = compare(np.array([-5.0, -5.0]), np.array([-15.0, -1e6]), [0, 1, 2], resamples=0)
    with localcontext(prec=60):
        near = float(as_nemo_codes_it(-5.0, -15.0))
    assert near == pytest.approx(4.3068982)
    far = 0.5 * (1e6 - 5) - np.log(2)
    assert found.value("js_divergence") == pytest.approx((near + far) / 2, rel=1e-14)
