from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.nemo_rl import nemo_rl
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens


def mixture_term(rollout: float, trainer: float) -> float:
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**9, -(10**9)
        p, q = Decimal(rollout), Decimal(trainer)
        mixture = ((p.exp() + q.exp()) / 2).ln()
        return float(sum((x - mixture).exp() - (x - mixture) - 1 for x in (p, q)) / 2)


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        tokens = [token for row in rows for token in row]
        diffs = [trainer - rollout for rollout, trainer in tokens]
        ratios = [oracle.exp(d) for d in diffs]
        errors = [oracle.mean([oracle.exp(abs(q - p)) for p, q in row]) for row in rows if row]
        expected = {
            "token_mult_prob_error": oracle.mean([oracle.exp(abs(d)) for d in diffs]),
            "gen_kl_error": oracle.mean([oracle.k3(d) for d in diffs]),
            "policy_kl_error": oracle.mean([oracle.k3(-d) for d in diffs]),
            "js_divergence_error": oracle.mean([mixture_term(*token) for token in tokens]),
            "sampling_importance_ratio": oracle.mean([r if r < np.inf else 0.0 for r in ratios]),
            "max_seq_mult_prob_error": max(errors),
            "mean_seq_mult_prob_error": oracle.mean(errors),
            "min_seq_mult_prob_error": min(errors),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(nemo_rl(unmasked_tokens(pair)), expected)


def test_the_documented_outlier() -> None:
    pair = checked_tokens(np.array([-5.0]), np.array([-15.0]), [0, 1])
    values = nemo_rl(unmasked_tokens(pair))
    assert values["gen_kl_error"] == pytest.approx(9.0, abs=1e-3)
    assert values["policy_kl_error"] == pytest.approx(22_015, abs=1)


def test_an_infinite_ratio_enters_as_zero() -> None:
    pair = checked_tokens(np.array([-np.inf, -1.0]), np.array([-1.0, -1.0]), [0, 2])
    with np.errstate(all="ignore"):
        assert nemo_rl(unmasked_tokens(pair))["sampling_importance_ratio"] == 0.5
