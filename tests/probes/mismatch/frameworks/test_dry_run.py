from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.frameworks import presets
from driftscope_probes.tokens import Tokens, checked_tokens

SHARES = {"tokens_dropped", "tokens_clipped", "sequences_dropped", "sequences_touched"}
NEED_ADVANTAGES = {"trl.off_policy_mask", "prime_rl.dppo_mask"}


@pytest.mark.parametrize("seed", range(10))
def test_shares_lie_between_nothing_and_everything(
    seed: int, batch: Callable[[int], Tokens]
) -> None:
    effects = presets(batch(seed))
    assert json.loads(json.dumps(effects, allow_nan=False)) == effects
    for name, effect in effects.items():
        if name in NEED_ADVANTAGES:
            assert set(effect) == {"left_out"}
            continue
        assert set(effect) == SHARES
        numbers = {key: float(value) for key, value in effect.items()}
        assert all(0.0 <= value <= 1.0 for value in numbers.values())
        assert numbers["tokens_dropped"] + numbers["tokens_clipped"] <= 1.0 + 1e-12
        assert numbers["sequences_dropped"] <= numbers["sequences_touched"]


def test_advantages_fill_what_was_left_out() -> None:
    pair = checked_tokens([-1.0], [-1.0], [0, 1])
    effects = presets(pair, advantages=[1.0])
    assert all(set(effects[name]) == SHARES for name in NEED_ADVANTAGES)
    with pytest.raises(TraceError, match="advantages"):
        presets(pair, advantages=[1.0, 2.0])


def test_a_batch_without_tokens_says_so() -> None:
    effects = presets(checked_tokens(np.zeros(2), np.zeros(2), [0, 2], [0, 0]))
    assert all(set(effect) == {"left_out"} for effect in effects.values())
