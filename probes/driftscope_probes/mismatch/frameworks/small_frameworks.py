"""AReaL, open-instruct, torchtitan and TRL: a few metrics each, under their own names."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from driftscope_probes.mismatch.frameworks.blocks import added, of_each_block, token_blocks
from driftscope_probes.mismatch.frameworks.token_read import DIFFERENT_ABOVE, EXTREME_DIFF
from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
)
from driftscope_probes.mismatch.number import FloatArray
from driftscope_probes.mismatch.terms import RHO_UPPER

# Rejection sampling: level token, action mask, metric ratio, upper bound 5.
AREAL_UPPER = 5.0
# Of ρ and of Δ, the second and the first column.
KEPT = {"behave_imp_weight": 1, "behave_approx_kl": 0}


def areal(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: behave_approx_kl is +Δ, so a KL has the opposite sign of everyone else's k1;
    weights and KL are averaged over the kept tokens only, which leaves out exactly the tokens that
    matter; a non-finite Δ becomes 0, so a broken engine reads as a perfect one.
    """
    tokens = _finite(tokens)
    values = {"rs_filtered_fraction": tokens.fraction(tokens.above("ratio", AREAL_UPPER))}
    values |= _of_kept(tokens)
    values["rollout_train_k3_kl"] = tokens.mean("k3")
    values["rollout_train_extreme_frac_tau2"] = tokens.fraction(
        tokens.above("abs_diff", EXTREME_DIFF)
    )
    return alias_values(values)


def _finite(tokens: UnmaskedTokens) -> UnmaskedTokens:
    """With Δ = 0 in place of NaN and the infinities, as AReaL goes on with it."""
    if tokens.finite_diff:
        return tokens
    finite = np.isfinite(tokens.diff)
    sides = np.where(finite, tokens.rollout, 0.0), np.where(finite, tokens.trainer, 0.0)
    return UnmaskedTokens(*sides, tokens.length, tokens.width)


def _of_kept(tokens: UnmaskedTokens) -> dict[str, float]:
    """Means and extremes of the kept tokens, without a copy of them."""
    columns = tokens.columns(2)
    left_out = np.flatnonzero(tokens.ratio > AREAL_UPPER)
    kept_before = left_out - np.arange(left_out.size)
    count = tokens.size - left_out.size

    def of_block(block: slice) -> FloatArray:
        first = np.searchsorted(kept_before, block.start, side="right")
        last = np.searchsorted(kept_before, block.stop, side="left")
        part = columns[:, block.start + first : block.stop + last]
        if last > first:
            among = left_out[first:last] - (block.start + first)
            part = np.ascontiguousarray(np.delete(part, among, axis=1))
        ends = part.min(axis=1, initial=np.inf), part.max(axis=1, initial=-np.inf)
        return np.stack([np.add.reduce(part, axis=1), *ends])

    parts = of_each_block(of_block, token_blocks(count), count)
    found = {
        "avg": added(parts[:, 0]) / (count or np.nan),
        "min": np.minimum.reduce(parts[:, 1]),
        "max": np.maximum.reduce(parts[:, 2]),
    }
    return {f"{name}/{key}": found[key][i] for name, i in KEPT.items() for key in found}


def open_instruct(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: vllm_local_reverse_kl weights by the rollout's probability tokens that were
    already sampled by it, so it is no KL of anything; tokens the engine could not score are left
    out without a count; the deviation of one token is 0.
    """
    known = tokens.without_nan(tokens.rollout)
    debug = "debug/vllm_vs_local_logprob_diff_"
    return alias_values(
        {
            debug + "mean": known.mean("abs_diff") if known.size else 0.0,
            debug + "max": known.largest("abs_diff") if known.size else 0.0,
            debug + "std": known.unbiased_std("abs_diff") if known.size > 1 else 0.0,
            "debug/vllm_local_reverse_kl": known.mean("reverse_kl") if known.size else 0.0,
            "val/rho_weight": tokens.mean("rho_weight"),
            "val/rho_clipfrac": tokens.fraction(tokens.above("ratio", RHO_UPPER)),
        }
    )


def torchtitan(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: logprob_diff/mean is signed, so it can be 0 while every token differs, whereas
    logprob_diff/max is of the absolute value; "different" means |Δ| > 1e-6, not different bits.
    """
    return alias_values(
        {
            "bit_wise/logprob_diff/mean": tokens.mean("diff"),
            "bit_wise/logprob_diff/max": tokens.largest("abs_diff"),
            # It counts a token as different above 1e-6, although the prefix says bit_wise.
            "bit_wise/ratio_tokens_different/mean": tokens.fraction(
                tokens.above("abs_diff", DIFFERENT_ABOVE)
            ),
            "loss/ratio_mean": tokens.mean("ratio"),
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
    known = tokens.without_nan(tokens.diff)
    ratios = limited_ratios(tokens, mode)
    difference = "sampling/sampling_logp_difference/"
    importance = "sampling/importance_sampling_ratio/"
    return alias_values(
        {
            difference + "mean": known.mean("abs_diff") if known.size else 0.0,
            difference + "max": known.largest("abs_diff") if known.size else 0.0,
            importance + "min": float(ratios.min()) if ratios.size else 0.0,
            importance + "mean": float(ratios.mean()) if ratios.size else 0.0,
            importance + "max": float(ratios.max()) if ratios.size else 0.0,
        }
    )


def raw_ratios(tokens: UnmaskedTokens, mode: TrlMode) -> FloatArray:
    """[unmasked] or [sequences given] importance ratios before clipping or masking."""
    log_ratios = tokens.diff if tokens.finite_diff else np.nan_to_num(tokens.diff, nan=0.0)
    if mode.startswith("sequence"):
        log_ratios = tokens.sequence_sum("diff" if tokens.finite_diff else log_ratios)
    ratios: FloatArray = np.exp(log_ratios)
    return ratios


def limited_ratios(tokens: UnmaskedTokens, mode: TrlMode) -> FloatArray:
    """The ratios the loss is multiplied with."""
    ratios = raw_ratios(tokens, mode)
    if mode.endswith("truncate"):
        return np.minimum(ratios, TRL_CLIP_MAX)
    return np.where(ratios > TRL_CLIP_MAX, 0.0, ratios)
