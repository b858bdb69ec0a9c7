from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens


def test_masked_tokens_go_and_unusable_ones_stay() -> None:
    rollout = np.array([-1.0, -2.0, np.nan, -4.0], dtype=np.float32)
    pair = checked_tokens(rollout, np.full(4, -1.0, np.float32), [0, 1, 1, 4], [0, 1, 1, 1])
    tokens = unmasked_tokens(pair)
    assert tokens.diff.dtype == np.float64
    assert tokens.diff[[0, 2]].tolist() == [1.0, 3.0] and np.isnan(tokens.diff[1])
    assert tokens.length.tolist() == [0, 0, 3] and tokens.width == 3


def test_sequences_without_tokens_give_zero() -> None:
    tokens = unmasked_tokens(checked_tokens(np.full(3, -1.0), np.full(3, -2.0), [0, 0, 2, 2, 3]))
    assert tokens.sequence_sum(tokens.diff).tolist() == [0.0, -2.0, 0.0, -1.0]
    assert tokens.sequence_mean(tokens.diff).tolist() == [0.0, -1.0, 0.0, -1.0]
    assert tokens.sequence_max(tokens.diff).tolist() == [0.0, -1.0, 0.0, -1.0]
    assert tokens.any_in_sequence(tokens.diff < 0).tolist() == [False, True, False, True]
    assert tokens.per_token(np.array([9.0, 1.0, 9.0, 2.0])).tolist() == [1.0, 1.0, 2.0]
