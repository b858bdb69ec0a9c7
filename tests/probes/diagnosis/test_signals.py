"""Identities and shapes, against plain formulas and noise of a known size."""

from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.diagnosis.body import noise_on_logits
from driftscope_probes.diagnosis.estimates import clustered_mean, variance_of_means
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.mismatch.impossible import find_impossible

from .faults import noisier
from .made_up_policy import MadeUpPolicy, log_softmax

FLOOR = prior_floor("bf16", "bf16")


def test_sigma_is_the_noise_on_the_logits() -> None:
    """Both sides have noise 0.2: together 0.2·√2, and up to √2 more by the other tokens' share."""
    policy = MadeUpPolicy(1, sequences=40)
    policy.engine = policy.logits
    policy.sampled = log_softmax(policy.logits)
    signals = Signals(policy.pair(logits=noisier(policy, 0.2)).observed(), FLOOR)
    assert signals.sigma is not None and 0.2 <= signals.sigma <= 0.2 * 2**0.5
    assert signals.typical_sigma is not None and 0.15 <= signals.typical_sigma <= 0.3
    body = signals.body
    by_hand = sum(body.delta**2) / sum((1 - body.certainty + 1e-3) ** 2)
    assert noise_on_logits(body) == pytest.approx(by_hand**0.5)


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_ratio_is_one_for_two_distributions(seed: int) -> None:
    policy = MadeUpPolicy(seed, sequences=60)
    _, distance = Signals(policy.pair(logits=noisier(policy, 0.6)).observed(), FLOOR).mean_ratio
    assert abs(distance) < 4


def test_the_mean_ratio_is_the_mass_that_was_kept() -> None:
    pair = MadeUpPolicy(3, sequences=60, keep=0.8).pair()
    ratio, distance = Signals(pair.observed(), FLOOR).mean_ratio
    assert 0.8 < ratio < 0.97 and distance < -5


def test_rounding_falls_with_certainty_and_knows_no_token() -> None:
    signals = Signals(MadeUpPolicy(2, sequences=80).pair().observed(), FLOOR)
    assert signals.sure_ratio is not None and signals.sure_ratio < 0.15
    assert signals.id_effect is not None and signals.id_effect < 2
    assert signals.sequence_effect is not None and signals.sequence_effect < 2
    assert 0.35 < signals.fraction_positive < 0.65


def test_a_token_that_always_moves_alike_is_seen() -> None:
    policy = MadeUpPolicy(2, sequences=80, classes=64)
    shift = 0.1 * policy.rng.standard_normal(64)
    signals = Signals(policy.pair(logits=policy.trainer_logits() + shift).observed(), FLOOR)
    assert signals.id_effect is not None and signals.id_effect > 5


def test_impossible_values_by_kind() -> None:
    pair = MadeUpPolicy(4).pair()
    rollout, trainer = pair.rollout.copy(), pair.trainer.copy()
    rollout[:3], rollout[3:5], trainer[5], trainer[6] = -9999.0, np.nan, np.inf, 0.2
    rollout[10], trainer[10] = 0.0, -3.0
    found = Signals(pair.changed(rollout=rollout, trainer=trainer).observed(), FLOOR).impossible
    assert found.rollout.sentinel.tolist() == [0, 1, 2]
    assert found.rollout.nonfinite.tolist() == [3, 4]
    assert found.trainer.nonfinite.tolist() == [5]
    assert found.trainer.positive.tolist() == [6]
    assert found.placeholder.tolist() == [10]
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 10]


def test_a_clean_step_has_no_impossible_value() -> None:
    pair = MadeUpPolicy(4).pair()
    found = find_impossible(pair.rollout, pair.trainer, lambda rows: rows)
    assert found.rows.size == 0 and found.trainer.positive.size == 0
    assert found.rollout.repeated_value is None


def test_standard_errors_count_sequences() -> None:
    """Tokens that all repeat their sequence's draw bring nothing new."""
    draws = np.random.default_rng(0).standard_normal(50)
    mean, error = clustered_mean(np.repeat(draws, 20), np.repeat(np.arange(50), 20))
    assert mean == pytest.approx(draws.mean())
    assert error == pytest.approx(draws.std(ddof=1) / 50**0.5, rel=1e-6)


def test_variance_of_means_is_one_by_chance() -> None:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 200, 20_000)
    noise = rng.standard_normal(group.size)
    assert variance_of_means(noise, group, least=4) == pytest.approx(1.0, abs=0.3)
    shifted = noise + rng.standard_normal(200)[group]
    assert (variance_of_means(shifted, group, least=4) or 0.0) > 50


def test_positions_from_prompts_that_are_there_and_masked() -> None:
    pair = MadeUpPolicy(5, sequences=3).pair()
    mask = pair.index >= 4
    signals = Signals(pair.observed(bare=True, mask=mask), FLOOR)
    assert signals.positions is not None
    assert signals.positions.min() == 4 and signals.body.index.min() == 0
