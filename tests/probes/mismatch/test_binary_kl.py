from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from driftscope_probes.tokens import Tokens


def clamped(logprob: float) -> float:
    return min(max(math.exp(logprob), 1e-6), 1 - 1e-6)


def as_openrlhf_codes_it(rollout: float, trainer: float) -> float:
    p, q = clamped(rollout), clamped(trainer)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    terms = [as_openrlhf_codes_it(r, t) for sequence in plain(pair) for _, r, t in sequence]
    found = compared(pair)
    # The plain form cancels: it is good to about 1e-16 and no better.
    expected = math.fsum(terms) / len(terms)
    assert found["binary_kl_mean"] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert found["binary_kl_max"] == pytest.approx(max(terms), rel=1e-9, abs=1e-15)
