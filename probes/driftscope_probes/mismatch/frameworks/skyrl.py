"""SkyRL (2026-08): rollout_train_logprobs_abs_diff_* and the off-policy correction metrics.

In: UnmaskedTokens. Out: AliasValues. Source:
skyrl/backends/skyrl_train/utils/off_policy_correction_utils.py.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
)
from driftscope_probes.mismatch.number import BoolArray, FloatArray
from driftscope_probes.mismatch.terms import SAFETY_BOUND

TOKEN_CLIP, SEQUENCE_CLIP = 2.0, 5.0
GEOMETRIC_BOUNDS = (0.99, 1.01)
PRODUCT_BOUNDS = (0.5, 2.0)
# Off by default; the values SkyRL's documentation suggests.
OUTLIER_BOUNDS = (1e-4, 100.0)
TOKEN_BOUNDS = (0.5, 2.0)


def skyrl(tokens: UnmaskedTokens) -> AliasValues:
    """Padded rows are taken to be as long as the longest given sequence.

    Flaws, kept: is_ratio_std, …_max and …_min are taken of ρ·mask over the padded batch, so
    padding enters as 0: the deviation mixes in the lengths, and the minimum is 0 as soon as
    anything is masked or padded. Sequence ratios count empty rows as ρ = 1. Sequence clipping is
    shown as if no earlier mask had been applied. SkyRL replaces a missing log-probability by
    −9999, which then looks like a difference; here it stays NaN and the number is None.
    """
    product = bounded_ratio(tokens.sequence_sum("diff"))
    geometric = bounded_ratio(tokens.sequence_mean("diff"))
    abs_diff = "rollout_train_logprobs_abs_diff_"
    values = {
        abs_diff + "mean": tokens.mean("abs_diff"),
        abs_diff + "std": tokens.unbiased_std("abs_diff"),
        abs_diff + "max": tokens.largest("abs_diff"),
        abs_diff + "min": tokens.smallest("abs_diff"),
        **_ratios(tokens),
        "tis_token_clip_high_ratio": tokens.fraction(tokens.above("ratio", TOKEN_CLIP)),
        "tis_seq_clip_high_ratio": mean(product > SEQUENCE_CLIP),
        "token_mask_masked_ratio": tokens.fraction(tokens.outside("ratio", TOKEN_BOUNDS)),
    }
    values |= _outliers(tokens)
    values |= _masked("geo_sequence_mask", geometric, GEOMETRIC_BOUNDS)
    values |= _masked("product_sequence_mask", product, PRODUCT_BOUNDS)
    return alias_values(values, "policy/")


def bounded_ratio(log_ratio: FloatArray) -> FloatArray:
    ratio: FloatArray = np.exp(np.clip(log_ratio, -SAFETY_BOUND, SAFETY_BOUND))
    return ratio


def outside(values: FloatArray, bounds: tuple[float, float]) -> BoolArray:
    low, high = bounds
    return (values < low) | (values > high)


def _masked(name: str, ratios: FloatArray, bounds: tuple[float, float]) -> dict[str, float]:
    low, high = bounds
    return {
        f"{name}_masked_ratio": mean(outside(ratios, bounds)),
        f"{name}_over_high_ratio": mean(ratios > high),
        f"{name}_under_low_ratio": mean(ratios < low),
    }


def _ratios(tokens: UnmaskedTokens) -> dict[str, float]:
    ratio = tokens.bounded_ratio(SAFETY_BOUND)
    padding = tokens.length.size * tokens.width - tokens.size
    return {
        "is_ratio_mean": tokens.mean(ratio),
        "is_ratio_std": _std_with_zeros(tokens, ratio, padding),
        "is_ratio_max": tokens.largest(ratio),
        "is_ratio_min": tokens.smallest(ratio) if not padding else 0.0,
    }


def _std_with_zeros(
    tokens: UnmaskedTokens, values: Literal["ratio"] | FloatArray, zeros: int
) -> float:
    """Unbiased deviation of the values and that many zeros, without storing the zeros."""
    count = tokens.size + zeros
    if count < 2:
        return math.nan
    centre = tokens.total(values) / count
    of_values = tokens.squares(values) if isinstance(values, str) else _squares(values - centre)
    squares = of_values + zeros * centre**2
    return math.sqrt(squares / (count - 1)) if math.isfinite(squares) else math.nan


def _squares(values: FloatArray) -> float:
    return float((values**2).sum())


def _outliers(tokens: UnmaskedTokens) -> dict[str, float]:
    low, high = OUTLIER_BOUNDS
    over, under = tokens.above("ratio", high), tokens.below("ratio", low)
    return {
        "outlier_seq_masked_ratio": mean(over + under > 0),
        "outlier_seq_over_high_ratio": mean(over > 0),
        "outlier_seq_under_low_ratio": mean(under > 0),
    }
