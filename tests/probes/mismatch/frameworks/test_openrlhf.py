from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.openrlhf import openrlhf, sequence_statistic
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        tokens = [token for row in rows for token in row]
        kept = [0.5 <= oracle.exp(trainer - rollout) <= 5.0 for rollout, trainer in tokens]
        expected = {
            "vllm_kl": oracle.mean([rollout - trainer for rollout, trainer in tokens]),
            "is_filter_ratio": oracle.mean([float(not k) for k in kept]),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(openrlhf(unmasked_tokens(pair)), expected)


def binary_kl(rollout: float, trainer: float) -> float:
    p, q = (min(max(math.exp(x), 1e-6), 1 - 1e-6) for x in (rollout, trainer))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_divergence_gates_equal_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches[:10]:
        flat = [binary_kl(*token) for row in rows for token in row]
        per_sequence = [oracle.mean([binary_kl(*t) for t in row]) if row else 0.0 for row in rows]
        alone = replace(unmasked_tokens(pair), length=np.ones(len(flat), np.int64))
        of_sequences = sequence_statistic(unmasked_tokens(pair), "binary_kl")
        assert alone.sequence_sum("binary_kl") == pytest.approx(flat, rel=1e-9, abs=1e-12)
        assert of_sequences == pytest.approx(per_sequence, rel=1e-9, abs=1e-12)
