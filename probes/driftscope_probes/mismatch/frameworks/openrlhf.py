"""OpenRLHF 0.11.2: vllm_kl and is_filter_ratio, and the gates behind them.

In: UnmaskedTokens. Out: AliasValues. Source: openrlhf/models/loss.py.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
)
from driftscope_probes.mismatch.number import FloatArray

Gating = Literal["ratio", "binary_kl", "tv"]
GATINGS: tuple[Gating, ...] = get_args(Gating)
Level = Literal["token", "seq"]

# --algo.advantage.is_correction_threshold, in the units of whichever statistic gates.
THRESHOLD = (0.5, 5.0)
# Keeps both logarithms of the binary KL finite.
PROBABILITY_CLAMP = 1e-6


def openrlhf(tokens: UnmaskedTokens) -> AliasValues:
    """With level token, gating ratio: the level is off by default, and then nothing is logged.

    Flaw: vllm_kl is k1, which is unbiased but may be negative, and cancels differences of either
    sign; a NaN ratio counts as filtered.
    """
    low, high = THRESHOLD
    gate = gate_statistic(tokens, "ratio", "token")
    return alias_values(
        {
            "vllm_kl": mean(tokens.rollout - tokens.trainer),
            "is_filter_ratio": mean(~((gate >= low) & (gate <= high))),
        }
    )


def gate_statistic(tokens: UnmaskedTokens, gating: Gating, level: Level) -> FloatArray:
    """[unmasked] what a gate holds against its threshold.

    Of a sequence: the geometric mean of the ratios, or the mean of the divergences.
    """
    if gating == "ratio":
        log_ratio = tokens.diff
        if level == "seq":
            log_ratio = tokens.per_token(tokens.sequence_mean(tokens.diff))
        ratios: FloatArray = np.exp(log_ratio)
        return ratios
    values = _divergence(tokens, gating)
    return tokens.per_token(tokens.sequence_mean(values)) if level == "seq" else values


def _divergence(tokens: UnmaskedTokens, gating: Gating) -> FloatArray:
    p = np.clip(tokens.rollout_prob, PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
    q = np.clip(tokens.trainer_prob, PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
    if gating == "tv":
        distance: FloatArray = np.abs(p - q)
        return distance
    divergence: FloatArray = p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q))
    return divergence
