"""SkyRL (2026-08): rollout_train_logprobs_abs_diff_* and the off-policy correction metrics.

In: UnmaskedTokens. Out: AliasValues. Source:
skyrl/backends/skyrl_train/utils/off_policy_correction_utils.py.
"""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    biggest,
    mean,
    smallest,
    unbiased_std,
)
from driftscope_probes.mismatch.number import BoolArray, FloatArray

SAFETY_BOUND = 20.0
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
    difference = np.abs(tokens.diff)
    ratio = tokens.bounded_ratio(SAFETY_BOUND)
    product = bounded_ratio(tokens.sequence_sum(tokens.diff))
    geometric = bounded_ratio(tokens.sequence_mean(tokens.diff))
    padding = tokens.length.size * tokens.width - ratio.size
    values = {
        "rollout_train_logprobs_abs_diff_mean": mean(difference),
        "rollout_train_logprobs_abs_diff_std": unbiased_std(difference),
        "rollout_train_logprobs_abs_diff_max": biggest(difference),
        "rollout_train_logprobs_abs_diff_min": smallest(difference),
        "is_ratio_mean": mean(ratio),
        "is_ratio_std": _std_with_zeros(ratio, padding),
        "is_ratio_max": biggest(ratio),
        "is_ratio_min": smallest(ratio) if not padding else 0.0,
        "tis_token_clip_high_ratio": mean(ratio > TOKEN_CLIP),
        "tis_seq_clip_high_ratio": mean(product > SEQUENCE_CLIP),
        "token_mask_masked_ratio": mean(outside(ratio, TOKEN_BOUNDS)),
    }
    values |= _outliers(tokens, ratio)
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


def _outliers(tokens: UnmaskedTokens, ratio: FloatArray) -> dict[str, float]:
    low, high = OUTLIER_BOUNDS
    return {
        "outlier_seq_masked_ratio": mean(tokens.any_in_sequence(outside(ratio, OUTLIER_BOUNDS))),
        "outlier_seq_over_high_ratio": mean(tokens.any_in_sequence(ratio > high)),
        "outlier_seq_under_low_ratio": mean(tokens.any_in_sequence(ratio < low)),
    }


def _std_with_zeros(values: FloatArray, zeros: int) -> float:
    """Unbiased deviation of the values and that many zeros, without storing the zeros."""
    count = values.size + zeros
    if count < 2:
        return math.nan
    centre = float(values.sum()) / count
    squares = float(((values - centre) ** 2).sum()) + zeros * centre**2
    return math.sqrt(squares / (count - 1)) if math.isfinite(squares) else math.nan
