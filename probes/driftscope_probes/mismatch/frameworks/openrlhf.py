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
)
from driftscope_probes.mismatch.number import FloatArray

Gating = Literal["ratio", "binary_kl", "tv"]
GATINGS: tuple[Gating, ...] = get_args(Gating)

# --algo.advantage.is_correction_threshold, in the units of whichever statistic gates.
THRESHOLD = (0.5, 5.0)


def openrlhf(tokens: UnmaskedTokens) -> AliasValues:
    """With level token, gating ratio: the level is off by default, and then nothing is logged.

    Flaw: vllm_kl is k1, which is unbiased but may be negative, and cancels differences of either
    sign; a NaN ratio counts as filtered.
    """
    return alias_values(
        {
            "vllm_kl": 0.0 - tokens.mean("diff"),
            "is_filter_ratio": tokens.fraction(tokens.not_within("ratio", THRESHOLD)),
        }
    )


def sequence_statistic(tokens: UnmaskedTokens, gating: Gating) -> FloatArray:
    """[sequences given] the geometric mean of the ratios, or the mean of the divergences."""
    if gating == "ratio":
        ratios: FloatArray = np.exp(tokens.sequence_mean("diff"))
        return ratios
    return tokens.sequence_mean(gating)
