"""AReaL, open-instruct, torchtitan and TRL: a few metrics each, under their own names."""

from __future__ import annotations

import math
from typing import Literal, get_args

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
from driftscope_probes.mismatch.number import FloatArray
from driftscope_probes.mismatch.terms import k3_terms

# Rejection sampling: level token, action mask, metric ratio, upper bound 5.
AREAL_UPPER = 5.0
# F(τ = 2): a ratio beyond 2 either way.
AREAL_EXTREME_TAU = math.log(2.0)


def areal(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: behave_approx_kl is +Δ, so a KL has the opposite sign of everyone else's k1;
    weights and KL are averaged over the kept tokens only, which leaves out exactly the tokens that
    matter; a non-finite Δ becomes 0, so a broken engine reads as a perfect one.
    """
    diff = finite_difference(tokens)
    ratio = np.exp(diff)
    kept = ratio <= AREAL_UPPER
    values = {"rs_filtered_fraction": mean(~kept)}
    for name, of_kept in (("behave_imp_weight", ratio[kept]), ("behave_approx_kl", diff[kept])):
        values |= {
            f"{name}/avg": mean(of_kept),
            f"{name}/min": smallest(of_kept),
            f"{name}/max": biggest(of_kept),
        }
    values["rollout_train_k3_kl"] = mean(k3_terms(diff))
    values["rollout_train_extreme_frac_tau2"] = mean(np.abs(diff) > AREAL_EXTREME_TAU)
    return alias_values(values)


def finite_difference(tokens: UnmaskedTokens) -> FloatArray:
    """[unmasked] Δ with 0 for NaN and the infinities, as AReaL goes on with it."""
    return np.nan_to_num(tokens.diff, nan=0.0, posinf=0.0, neginf=0.0)


OPEN_INSTRUCT_RHO_UPPER = 2.0
OPEN_INSTRUCT_CLAMP = 10.0


def open_instruct(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: vllm_local_reverse_kl weights by the rollout's probability tokens that were
    already sampled by it, so it is no KL of anything; tokens the engine could not score are left
    out without a count; the deviation of one token is 0.
    """
    known = ~np.isnan(tokens.rollout)
    difference = np.abs(tokens.diff[known])
    weighted = (tokens.rollout_prob * (tokens.rollout - tokens.trainer))[known]
    ratio = tokens.bounded_ratio(OPEN_INSTRUCT_CLAMP)
    debug = "debug/vllm_vs_local_logprob_diff_"
    return alias_values(
        {
            debug + "mean": float(difference.mean()) if difference.size else 0.0,
            debug + "max": float(difference.max()) if difference.size else 0.0,
            debug + "std": unbiased_std(difference) if difference.size > 1 else 0.0,
            "debug/vllm_local_reverse_kl": float(weighted.mean()) if weighted.size else 0.0,
            "val/rho_weight": mean(np.minimum(ratio, OPEN_INSTRUCT_RHO_UPPER)),
            "val/rho_clipfrac": mean(ratio > OPEN_INSTRUCT_RHO_UPPER),
        }
    )


# torchtitan counts a token as different above it, although the prefix says bit_wise.
TORCHTITAN_DIFFERENT_ABOVE = 1e-6


def torchtitan(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: logprob_diff/mean is signed, so it can be 0 while every token differs, whereas
    logprob_diff/max is of the absolute value; "different" means |Δ| > 1e-6, not different bits.
    """
    return alias_values(
        {
            "bit_wise/logprob_diff/mean": mean(tokens.diff),
            "bit_wise/logprob_diff/max": biggest(np.abs(tokens.diff)),
            "bit_wise/ratio_tokens_different/mean": mean(
                np.abs(tokens.diff) > TORCHTITAN_DIFFERENT_ABOVE
            ),
            "loss/ratio_mean": mean(tokens.ratio),
        }
    )


TrlMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
TRL_MODES: tuple[TrlMode, ...] = get_args(TrlMode)

# GRPOConfig: vllm_importance_sampling_mode, …_clip_max; …_clip_min is None.
TRL_DEFAULT_MODE: TrlMode = "sequence_mask"
TRL_CLIP_MAX = 3.0


def trl(tokens: UnmaskedTokens, mode: TrlMode = TRL_DEFAULT_MODE) -> AliasValues:
    """Flaws, kept: a token with a NaN difference is left out of the difference but enters the
    ratios as ρ = 1, and an infinite one as the largest float; ratios are logged after clipping or
    masking, so their tail is invisible (maximum ≤ 3, and masked ones count as 0 in the minimum and
    the mean); at sequence level a sequence without tokens counts as ρ = 1; without tokens the
    answer is 0, not undefined. TRL also averages the means of its ranks without weights; here
    there is one rank.
    """
    known = np.abs(tokens.diff[~np.isnan(tokens.diff)])
    ratios = limited_ratios(tokens, mode)
    difference = "sampling/sampling_logp_difference/"
    importance = "sampling/importance_sampling_ratio/"
    return alias_values(
        {
            difference + "mean": float(known.mean()) if known.size else 0.0,
            difference + "max": float(known.max()) if known.size else 0.0,
            importance + "min": float(ratios.min()) if ratios.size else 0.0,
            importance + "mean": float(ratios.mean()) if ratios.size else 0.0,
            importance + "max": float(ratios.max()) if ratios.size else 0.0,
        }
    )


def raw_ratios(tokens: UnmaskedTokens, mode: TrlMode) -> FloatArray:
    """[unmasked] or [sequences given] importance ratios before clipping or masking."""
    log_ratios = np.nan_to_num(tokens.diff, nan=0.0)
    if mode.startswith("sequence"):
        log_ratios = tokens.sequence_sum(log_ratios)
    ratios: FloatArray = np.exp(log_ratios)
    return ratios


def limited_ratios(tokens: UnmaskedTokens, mode: TrlMode) -> FloatArray:
    """The ratios the loss is multiplied with."""
    ratios = raw_ratios(tokens, mode)
    if mode.endswith("truncate"):
        return np.minimum(ratios, TRL_CLIP_MAX)
    return np.where(ratios > TRL_CLIP_MAX, 0.0, ratios)
