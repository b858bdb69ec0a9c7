from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.frameworks.slime import miles, slime
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens


def weight(rollout: float, trainer: float) -> float:
    return math.exp(max(-20.0, min(20.0, trainer - rollout)))


def perplexities(rows: Any, oracle: Any) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for row in rows:
        p = -oracle.mean([rollout for rollout, _ in row]) if row else 0.0
        q = -oracle.mean([trainer for _, trainer in row]) if row else 0.0
        one = 1.0 if row else 0.0
        for name, value in {
            "training_log_ppl": q,
            "training_ppl": oracle.exp(q) * one,
            "rollout_log_ppl": p,
            "rollout_ppl": oracle.exp(p) * one,
            "log_ppl_diff": q - p,
            "log_ppl_abs_diff": abs(q - p),
            "ppl_ratio": oracle.exp(q - p) * one,
        }.items():
            columns.setdefault(f"mis_{name}", []).append(value)
    return {name: oracle.mean(values) for name, values in columns.items()}


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        terms = {
            "train/train_rollout_logprob_abs_diff": lambda p, q: abs(q - p),
            "tis": lambda p, q: oracle.exp(q - p),
            "tis_clipfrac": lambda p, q: float(oracle.exp(q - p) > 2.0),
            "tis_abs": lambda p, q: abs(oracle.exp(q - p) - 1.0),
            "mis_kl": lambda p, q: p - q,
            "mis_k3_kl": lambda p, q: oracle.k3(q - p),
            "mis_mean_is_weight_before_clip": weight,
            "mis_truncate_fraction": lambda p, q: float(weight(p, q) > 2.0),
            "mis_ratio_mean_after_mis": lambda p, q: min(weight(p, q), 2.0),
            "mis_catastrophic_token_fraction": lambda p, q: float(q - p < math.log(1e-4)),
            "train/train_rollout_kl": lambda p, q: min(oracle.k3(q - p), 10.0),
        }
        expected = {name: oracle.over_sequences(rows, term) for name, term in terms.items()}
        vetoed = [float(any(q - p < math.log(1e-4) for p, q in row)) for row in rows]
        expected["mis_catastrophic_seq_fraction"] = oracle.mean(vetoed)
        expected |= perplexities(rows, oracle)
        with np.errstate(all="ignore"):
            tokens = unmasked_tokens(pair)
            oracle.agrees(miles(tokens), expected)
            del expected["train/train_rollout_kl"]
            oracle.agrees(slime(tokens), expected)
