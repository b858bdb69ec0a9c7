"""Binary KL of one token: KL between "this token" and "any other" on both sides.

In: both log-probabilities [tokens], float64. Out: one value per token, nats, never negative.
"""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.k3 import k3_terms

# OpenRLHF clamps both probabilities to [1e-6, 1 − 1e-6].
CLAMP = 1e-6
LOWEST = math.log(CLAMP)
HIGHEST = math.log1p(-CLAMP)


def binary_kl_terms(rollout_logprob: FloatArray, trainer_logprob: FloatArray) -> FloatArray:
    """p ln(p/q) + (1−p) ln((1−p)/(1−q)), p of the rollout side, q of the trainer.

    Written as p·k3 + (1−p)·k3 of the two log-ratios: the terms k3 adds cancel exactly, and no
    difference of nearly equal numbers is left, which is what close sides would otherwise show.
    """
    rollout = np.clip(rollout_logprob, LOWEST, HIGHEST)
    diff = np.clip(trainer_logprob, LOWEST, HIGHEST) - rollout
    prob, rest = np.exp(rollout), -np.expm1(rollout)
    # (1 − q) / (1 − p) − 1 = (p − q) / (1 − p); it stays above −1 as q stays below 1.
    rest_diff = np.log1p(-prob * np.expm1(diff) / rest)
    terms: FloatArray = prob * k3_terms(diff) + rest * k3_terms(rest_diff)
    return terms
