from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    sequences = [[t - r for _, r, t in sequence] for sequence in plain(pair)]
    squares = [math.exp(d) ** 2 for sequence in sequences for d in sequence]
    products = [math.exp(2 * min(max(math.fsum(s), -20), 20)) for s in sequences]
    found = compared(pair)
    token, sequence = math.fsum(squares) / len(squares) - 1, math.fsum(products) / len(products) - 1
    assert found["chi2_token"] == pytest.approx(token, rel=1e-9, abs=1e-14)
    assert found["chi2_seq"] == pytest.approx(sequence, rel=1e-9, abs=1e-12)
    assert found["chi2_token_saturated"] == 0


def test_what_sits_at_the_bound_is_counted() -> None:
    rollout, trainer = np.full(5, -30.0), np.array([-9.0, -30.0, -51.0, -10.0, -29.0])
    found = compare(rollout, trainer, [0, 2, 3, 5], resamples=0)
    assert found.value("chi2_token_saturated") == 2  # 21, 0, −21, 20 and 1 nats
    assert found.value("chi2_seq_saturated") == 3  # 21, −21 and 21 nats
    assert found.value("chi2_seq") == pytest.approx(2 * math.exp(40) / 3, rel=1e-12)


def test_close_sides_do_not_drown_in_rounding() -> None:
    found = compare(np.array([-1.0]), np.array([-1.0 + 2.0**-40]), [0, 1], resamples=0)
    assert found.value("chi2_token") == pytest.approx(2.0**-39, rel=1e-9)
