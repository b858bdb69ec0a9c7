from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import NO_TOKENS
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    tokens = [(r, t) for sequence in plain(pair) for _, r, t in sequence]
    count = sum(r > -0.7 and t - r < -2 for r, t in tokens)
    found = compared(pair)
    assert found["confident_disagreements"] == count
    assert found["confident_disagreement_share"] == count / len(tokens)


def test_one_planted_token_is_found_and_near_misses_are_not() -> None:
    rollout = np.array([-0.5, -0.5, -0.75, -0.5])
    trainer = np.array([-3.0, -2.5, -9.0, 0.0])  # then: exactly 2 nats, unsure, nearer
    found = compare(rollout, trainer, [0, 4], resamples=0)
    assert found.value("confident_disagreements") == 1
    nothing = compare(np.zeros(0), np.zeros(0), [0, 0], resamples=0)
    assert nothing.value("confident_disagreement_share") == NO_TOKENS
