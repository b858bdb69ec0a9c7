from __future__ import annotations

import math

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks import PresetEffect, preset_effects
from driftscope_probes.tokens import checked_tokens

# Ratios per sequence, and what each preset does to them by hand: (tokens dropped, tokens clipped).
RATIOS = ((1.0, 1.0), (4.0, 1.0), (6.0, 0.2), (5e-5, 1.0), (1.005, 1.0))
EXPECTED = {
    "trl.token_truncate": (0, 2),
    "trl.token_mask": (2, 0),
    "trl.sequence_truncate": (0, 2),
    "trl.sequence_mask": (2, 0),
    "slime.tis": (0, 2),
    "slime.mis_truncate": (0, 2),
    "slime.mis_mask": (4, 0),
    "slime.mis_veto": (2, 0),
    "slime.mis_geometric_mask": (8, 0),
    "skyrl.tis_token": (0, 2),
    "skyrl.tis_sequence": (0, 0),
    "skyrl.token_mask": (4, 0),
    "skyrl.outlier_mask": (2, 0),
    "skyrl.geometric_mask": (6, 0),
    "skyrl.product_mask": (4, 0),
    "openrlhf.token_ratio": (3, 0),
    "openrlhf.seq_ratio": (2, 0),
    "nemo_rl.icepop": (3, 0),
    "nemo_rl.seq_mask_tis": (8, 0),
    "nemo_rl.seq_logprob_error": (6, 0),
    "areal.token_ratio_mask": (1, 0),
    "open_instruct.rho_clamp": (0, 2),
}


@pytest.fixture(scope="module")
def effects() -> dict[str, PresetEffect]:
    diff = np.log(np.array(RATIOS)).ravel()
    rollout = np.full(diff.size, -30.0)
    pair = checked_tokens(rollout, rollout + diff, np.arange(0, 11, 2))
    shares = preset_effects(pair, advantages=np.repeat([1.0, 1.0, 1.0, -1.0, -1.0], 2))
    return {name: value for name, value in shares.items() if isinstance(value, PresetEffect)}


@pytest.mark.parametrize("name", EXPECTED)
def test_shares_counted_by_hand(name: str, effects: dict[str, PresetEffect]) -> None:
    found = effects[name].tokens_dropped * 10, effects[name].tokens_clipped * 10
    assert found == pytest.approx(EXPECTED[name])


def test_off_policy_mask_drops_stale_sequences_of_negative_advantage(
    effects: dict[str, PresetEffect],
) -> None:
    assert effects["trl.off_policy_mask"].sequences_dropped == pytest.approx(1 / 5)


def test_dppo_mask_drops_tokens_that_moved_with_their_advantage() -> None:
    pair = checked_tokens(np.log([0.5, 0.5]), np.log([0.8, 0.8]), [0, 2])
    effect = preset_effects(pair, advantages=[1.0, -1.0])["prime_rl.dppo_mask"]
    assert effect == PresetEffect(0.5, 0.0, 0.0, 1.0)


def test_divergence_gates_drop_agreement_with_the_default_threshold() -> None:
    pair = checked_tokens(np.full(2, -1.0), np.full(2, -1.0), [0, 2])
    assert preset_effects(pair)["openrlhf.token_tv"] == PresetEffect(1.0, 0.0, 1.0, 1.0)


def test_nan_is_dropped_by_what_keeps_and_kept_by_what_drops() -> None:
    pair = checked_tokens(np.array([math.nan, -1.0]), np.full(2, -1.0), [0, 2])
    effects = preset_effects(pair)
    assert effects["verl.decoupled_token_icepop"] == PresetEffect(0.5, 0.0, 0.0, 1.0)
    assert effects["trl.token_mask"] == PresetEffect(0.0, 0.0, 0.0, 0.0)
