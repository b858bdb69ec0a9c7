from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import Tokens, checked_tokens


@pytest.mark.parametrize("seed", range(20))
def test_same_tokens_as_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    sequences = plain(pair)
    tokens = token_differences(pair)
    flat = [token for sequence in sequences for token in sequence]
    assert tokens.length.tolist() == [len(sequence) for sequence in sequences]
    assert tokens.response_index().tolist() == [place for place, _, _ in flat]
    assert tokens.diff.tolist() == [trainer - rollout for _, rollout, trainer in flat]
    assert tokens.rollout_prob.tolist() == pytest.approx([math.exp(r) for _, r, _ in flat])
    assert tokens.trainer_prob.tolist() == pytest.approx([math.exp(t) for _, _, t in flat])


def test_float32_is_widened_before_the_subtraction() -> None:
    rollout, trainer = np.float32(-1.1), np.float32(3e-9)
    tokens = token_differences(checked_tokens(np.array([rollout]), np.array([trainer]), [0, 1]))
    assert tokens.diff[0] == float(trainer) - float(rollout)
    assert tokens.diff[0] != float(trainer - rollout)  # the fault: float32 arithmetic


def test_a_difference_that_overflows_is_left_out() -> None:
    pair = checked_tokens(np.array([-1e308, -1.0]), np.array([1e308, -1.0]), [0, 2])
    assert token_differences(pair).diff.tolist() == [0.0]
