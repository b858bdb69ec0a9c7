from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.frameworks.small_frameworks import open_instruct
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens

DIFFERENCE = "debug/vllm_vs_local_logprob_diff_"


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        tokens = [token for row in rows for token in row]
        differences = [abs(trainer - rollout) for rollout, trainer in tokens]
        weights = [math.exp(max(-10.0, min(10.0, q - p))) for p, q in tokens]
        weighted = [oracle.exp(p) * (p - q) for p, q in tokens]
        expected = {
            DIFFERENCE + "mean": oracle.mean(differences),
            DIFFERENCE + "max": max(differences),
            DIFFERENCE + "std": oracle.std(differences) if len(differences) > 1 else 0.0,
            "debug/vllm_local_reverse_kl": oracle.mean(weighted),
            "val/rho_weight": oracle.mean([min(w, 2.0) for w in weights]),
            "val/rho_clipfrac": oracle.mean([float(w > 2.0) for w in weights]),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(open_instruct(unmasked_tokens(pair)), expected)


def test_an_unscored_token_is_left_out() -> None:
    pair = checked_tokens(np.array([np.nan, -1.0]), np.array([-1.0, -1.5]), [0, 2])
    assert open_instruct(unmasked_tokens(pair))[DIFFERENCE + "mean"] == 0.5
