from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.frameworks.preset_fates import (
    LeftOut,
    PresetEffect,
    SequenceFates,
    effect,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens


def test_shares_of_tokens_and_of_sequences_that_hold_any() -> None:
    sides = np.full(6, -1.0)
    tokens = unmasked_tokens(checked_tokens(sides, sides, [0, 2, 2, 4, 6]))
    dropped, clipped = np.array([2, 0, 1, 0]), np.array([0, 0, 1, 0])
    assert effect(tokens, SequenceFates(dropped, clipped)) == PresetEffect(
        tokens_dropped=3 / 6,
        tokens_clipped=1 / 6,
        sequences_dropped=1 / 3,
        sequences_touched=2 / 3,
    )


def test_no_token_no_shares() -> None:
    tokens = unmasked_tokens(checked_tokens([-1.0], [-1.0], [0, 1], [False]))
    nothing = np.zeros(1, dtype=np.int64)
    assert isinstance(effect(tokens, SequenceFates(nothing, nothing)), LeftOut)
