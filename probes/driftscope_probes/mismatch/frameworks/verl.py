"""verl 0.9.1: rollout_corr/* and training/rollout_probs_diff_*, as verl defines them.

In: UnmaskedTokens. Out: AliasValues. Sources: verl/trainer/ppo/rollout_corr_helper.py and
verl/utils/debug/metrics.py of that version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
    unbiased_std,
)
from driftscope_probes.mismatch.frameworks.verl_rejection import VerlRejection, rejection_metrics
from driftscope_probes.mismatch.number import FloatArray, Undefined
from driftscope_probes.mismatch.terms import SAFETY_BOUND

# verl guards two divisions of the weights with it; as float32 that leaves other sums unchanged.
MEAN_GUARD = 1e-8


@dataclass(frozen=True, slots=True)
class VerlCorrection:
    """RolloutCorrectionConfig as far as it shapes metrics; the defaults are verl's."""

    rollout_is: Literal["token", "sequence"] | None = "sequence"
    upper: float = 2.0
    lower: float | None = None  # None: truncation at upper; a number: IcePop, zero outside
    rejections: tuple[VerlRejection, ...] = ()


DEFAULT_CORRECTION = VerlCorrection()


def verl(tokens: UnmaskedTokens, correction: VerlCorrection = DEFAULT_CORRECTION) -> AliasValues:
    """Everything verl logs about the mismatch. A batch without tokens: verl raises, here None."""
    if not tokens.size:
        return alias_values({"training/rollout_probs_diff_valid": 0.0})
    corrected = offpolicy_metrics(tokens)
    if correction.rollout_is is not None:
        corrected |= importance_metrics(tokens, correction)
    if correction.rejections:
        corrected |= rejection_metrics(tokens, correction.rejections)
    return alias_values(corrected, "rollout_corr/") | alias_values(debug_metrics(tokens))


def debug_metrics(tokens: UnmaskedTokens) -> dict[str, float]:
    """training/rollout_probs_diff_* and the Pearson correlation, of exp(logp).

    Flaws: verl's docstring calls these log-probability differences; the deviation of one token is
    NaN; a mask of another shape gives a correlation of 0 without a word (refused here). Where one
    side is constant, verl's answer is NaN or, by rounding of the mean, an arbitrary number; None
    here.
    """
    correlation = tokens.correlation()
    return {
        "training/rollout_probs_diff_valid": 1.0,
        "training/rollout_probs_diff_max": tokens.largest("prob_abs_diff"),
        "training/rollout_probs_diff_mean": tokens.mean("prob_abs_diff"),
        "training/rollout_probs_diff_std": tokens.unbiased_std("prob_abs_diff"),
        "training/rollout_actor_probs_pearson_corr": (
            math.nan if isinstance(correlation, Undefined) else correlation
        ),
    }


def offpolicy_metrics(tokens: UnmaskedTokens) -> dict[str, float]:
    """compute_offpolicy_metrics: perplexities, KL, χ².

    Flaws, kept: a sequence without tokens counts as a row with perplexity 1 and log-ratio 0, which
    draws every mean over sequences towards agreement; k3_kl is unclamped, so one token may decide
    it; chi2_token clamps Δ and chi2_seq clamps S_i to ±20, so both saturate, chi2_seq at e⁴⁰.
    Of verl's k3_kl the definition is followed, not the rounding: it subtracts 1 from exp(Δ), which
    in float32 is noise below |Δ| = 3e-4.
    """
    trainer_mean = tokens.sequence_mean("trainer")
    rollout_mean = tokens.sequence_mean("rollout")
    log_ppl_diff = rollout_mean - trainer_mean
    sequence_clamped = np.clip(tokens.sequence_sum("diff"), -SAFETY_BOUND, SAFETY_BOUND)
    return {
        "training_ppl": mean(np.exp(-trainer_mean)),
        "training_log_ppl": mean(-trainer_mean),
        "kl": 0.0 - tokens.mean("diff"),
        "k3_kl": tokens.mean("k3"),
        "rollout_ppl": mean(np.exp(-rollout_mean)),
        "rollout_log_ppl": mean(-rollout_mean),
        "log_ppl_diff": mean(log_ppl_diff),
        "log_ppl_abs_diff": mean(np.abs(log_ppl_diff)),
        "log_ppl_diff_max": float(log_ppl_diff.max()),
        "log_ppl_diff_min": float(log_ppl_diff.min()),
        "ppl_ratio": mean(np.exp(log_ppl_diff)),
        "chi2_token": tokens.mean("chi2"),
        "chi2_seq": mean(np.expm1(2.0 * sequence_clamped)),
    }


def sequence_weights(tokens: UnmaskedTokens) -> FloatArray:
    """[sequences given] importance weights before truncation: exp of S_i, clamped to ±20 nats."""
    sums = np.clip(tokens.sequence_sum("diff"), -SAFETY_BOUND, SAFETY_BOUND)
    weights: FloatArray = np.exp(sums)
    return weights


def importance_metrics(tokens: UnmaskedTokens, correction: VerlCorrection) -> dict[str, float]:
    """rollout_is_*: statistics of the importance weights that verl applies.

    Flaws, kept: mean, std and eff_sample_size are taken after truncation, which hides the tail
    they are meant to show; at sequence level every sequence counts once per token in them, while
    max, min and the fractions count each row once, empty rows as weight 1; the seq_* statistics
    count an empty row as weight 0.
    """
    assert correction.rollout_is is not None
    # One weight per token, or one per sequence that each of its tokens has.
    raw: FloatArray = sequence_weights(tokens)
    per_token: Callable[[FloatArray], FloatArray] = tokens.per_token
    if correction.rollout_is == "token":
        ratio = tokens.bounded_ratio(SAFETY_BOUND)
        raw, per_token = tokens.ratio if isinstance(ratio, str) else ratio, np.asarray
    low = 1.0 / correction.upper if correction.lower is None else correction.lower
    if correction.lower is None:
        applied = np.minimum(raw, correction.upper)
    else:
        applied = np.where((raw >= low) & (raw <= correction.upper), raw, 0.0)
    applied_tokens = per_token(applied)
    applied_mean = mean(applied_tokens)
    normalised = applied / (applied_mean + MEAN_GUARD)
    metrics = {
        "rollout_is_mean": applied_mean,
        "rollout_is_std": math.sqrt(mean(per_token(np.square(applied - applied_mean)))),
        "rollout_is_eff_sample_size": _inverse(mean(per_token(normalised**2))),
    }
    if correction.rollout_is == "sequence":
        metrics |= _sequence_extremes(tokens, low, correction.upper)
    else:
        metrics |= {
            "rollout_is_max": float(applied.max()),
            "rollout_is_min": float(applied.min()),
            "rollout_is_ratio_fraction_high": mean(raw > correction.upper),
            "rollout_is_ratio_fraction_low": mean(raw < low),
        }
    if correction.lower is not None:
        outside = (raw < low) | (raw > correction.upper)
        metrics["rollout_is_oob_ratio"] = mean(per_token(outside.astype(np.float64)))
    raw_tokens = applied_tokens if np.array_equal(raw, applied) else per_token(raw)
    return metrics | _per_sequence(tokens, raw_tokens, applied_tokens, low, correction.upper)


def _sequence_extremes(tokens: UnmaskedTokens, low: float, high: float) -> dict[str, float]:
    sums = tokens.sequence_sum("diff")
    # verl takes these two logarithms in float32 and compares in the precision of the data.
    log_low, log_high = float(np.log(np.float32(low))), float(np.log(np.float32(high)))
    return {
        "rollout_is_max": float(np.exp(np.minimum(sums.max(), SAFETY_BOUND))),
        "rollout_is_min": float(np.exp(sums.min())),
        "rollout_is_ratio_fraction_high": mean(sums > log_high),
        "rollout_is_ratio_fraction_low": mean(sums < log_low),
    }


def _per_sequence(
    tokens: UnmaskedTokens, raw: FloatArray, applied: FloatArray, low: float, high: float
) -> dict[str, float]:
    means = tokens.sequence_mean(applied)
    raw_means = tokens.sequence_mean(raw)
    return {
        "rollout_is_seq_mean": mean(means),
        "rollout_is_seq_std": unbiased_std(means) if means.size > 1 else 0.0,
        "rollout_is_seq_max": float(means.max()),
        "rollout_is_seq_min": float(means.min()),
        "rollout_is_seq_max_deviation": float(np.abs(means - 1.0).max()),
        "rollout_is_seq_fraction_high": mean(raw_means > high),
        "rollout_is_seq_fraction_low": mean(raw_means < low),
    }


def _inverse(value: float) -> float:
    """1 / value; NaN for 0, where verl stops with ZeroDivisionError (IcePop keeps nothing)."""
    return 1.0 / value if value else math.nan
