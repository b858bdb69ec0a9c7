from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks import aliases, blocks, presets
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.mismatch.terms import k3_terms
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
    assert tokens.count(tokens.diff < 0).tolist() == [0, 2, 0, 1]
    assert tokens.per_token(np.array([9.0, 1.0, 9.0, 2.0])).tolist() == [1.0, 1.0, 2.0]


def test_k3_is_that_of_the_comparison_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([10.0 ** rng.uniform(-320, 2, 20_000), rng.random(80_000) / 50])
    diff = sizes * rng.choice([-1.0, 1.0], sizes.size)
    tokens = unmasked_tokens(checked_tokens(np.zeros(diff.size), diff, [0, diff.size]))
    assert tokens.k3.tobytes() == k3_terms(diff).tobytes()


@pytest.mark.parametrize("broken", [False, True])
def test_a_second_thread_changes_no_bit(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    rng = np.random.default_rng(1)
    limits = np.concatenate([[0], np.cumsum(rng.integers(0, 9_000, 60))])
    rollout = np.log(rng.random(limits[-1]) + 1e-9)
    trainer = rollout * rng.normal(1, 0.1, rollout.size)
    trainer[::20_000] = 1e3 if broken else -30.0  # an overflow warns where a thread has no errstate
    pair = checked_tokens(rollout, trainer, limits)
    found = []
    for threads_from in (rollout.size + 1, rollout.size):
        monkeypatch.setattr(blocks, "TWO_THREADS_FROM", threads_from)
        found.append((repr(aliases(pair)), repr(presets(pair))))
    assert found[0] == found[1]
