from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.frameworks.small_frameworks import areal
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        diffs = [trainer - rollout for row in rows for rollout, trainer in row]
        kept = [d for d in diffs if oracle.exp(d) <= 5.0]
        expected = {
            "rs_filtered_fraction": 1 - len(kept) / len(diffs),
            "rollout_train_k3_kl": oracle.mean([oracle.k3(d) for d in diffs]),
            "rollout_train_extreme_frac_tau2": sum(abs(d) > math.log(2.0) for d in diffs)
            / len(diffs),
        }
        for name, values in (
            ("behave_imp_weight", [math.exp(d) for d in kept]),
            ("behave_approx_kl", kept),
        ):
            expected[f"{name}/avg"] = oracle.mean(values) if values else math.nan
            expected[f"{name}/min"] = min(values, default=math.nan)
            expected[f"{name}/max"] = max(values, default=math.nan)
        with np.errstate(all="ignore"):
            oracle.agrees(areal(unmasked_tokens(pair)), expected)


def test_a_broken_engine_reads_as_a_perfect_one() -> None:
    pair = checked_tokens(np.full(3, np.nan), np.full(3, -1.0), [0, 3])
    values = areal(unmasked_tokens(pair))
    assert values["behave_approx_kl/avg"] == 0.0
    assert values["rs_filtered_fraction"] == 0.0
