from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.prime_rl import prime_rl
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        terms = [oracle.k3(trainer - rollout) for row in rows for rollout, trainer in row]
        expected = {
            "mismatch_kl/all/mean": oracle.mean(terms),
            "mismatch_kl/all/std": oracle.std(terms),
            "mismatch_kl/all/max": max(terms),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(prime_rl(unmasked_tokens(pair)), expected)


def test_the_mask_follows_the_sign_of_the_advantage() -> None:
    rollout = np.log([0.5, 0.5, 0.5, 0.5])
    trainer = np.log([0.8, 0.2, 0.8, 0.2])
    advantages = np.array([1.0, 1.0, -1.0, 0.0])
    values = prime_rl(unmasked_tokens(checked_tokens(rollout, trainer, [0, 4])), advantages)
    assert values["is_masked"] == 0.5
    assert values["is_masked_high"] == 0.25
    assert values["is_masked_low"] == 0.0  # an advantage of 0 is masked as if it were negative
    assert values["masked_advantage_positive"] == 0.5
    kl = {q: q / 0.5 - 1 - math.log(q / 0.5) for q in (0.8, 0.2)}
    assert values["masked_mismatch_kl"] == pytest.approx((kl[0.8] + kl[0.2]) / 2)
    assert values["unmasked_mismatch_kl"] == pytest.approx((kl[0.8] + kl[0.2]) / 2)


def test_entropy_ratio() -> None:
    pair = checked_tokens(np.array([-1.0, -1.0]), np.array([-0.5, -1.0]), [0, 2])
    values = prime_rl(unmasked_tokens(pair), entropy=np.array([1.0, 3.0]))
    assert values["kl_ent_ratio/mean"] == pytest.approx((math.exp(0.5) - 1.5) / 4.0)
