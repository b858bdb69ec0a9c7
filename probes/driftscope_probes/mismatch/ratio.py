"""Importance ratios ρ = exp(Δ) of the tokens, raw: neither clipped nor masked by a threshold.

In: what was summed and counted over the tokens. Out: plain numbers; the expectation of ρ
under rollout samples is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_counts import TokenCounts
from driftscope_probes.mismatch.token_extremes import TokenExtremes


@dataclass(frozen=True, slots=True)
class Ratio:
    """Shares are of tokens; a band is closed, so that a ratio on its edge is inside."""

    ratio_mean: Number
    ratio_min: Number
    ratio_max: Number
    ratio_std: Number  # unbiased
    ratio_abs_dev_mean: Number  # mean |ρ − 1| (slime tis_abs)
    ratio_share_outside_0p5_2: Number
    ratio_share_above_2: Number
    ratio_share_below_0p5: Number
    ratio_share_outside_0p9_1p1: Number  # clipped by PPO at ε = 0.1, whatever the advantage
    ratio_share_outside_0p8_1p2: Number  # clipped by PPO at ε = 0.2
    abs_diff_share_above_ln2: Number  # |Δ| > ln 2, the F(τ = 2) of routing replay


def ratio(
    sums: SequenceSums,
    divergences: DivergenceSums,
    counts: TokenCounts,
    extremes: TokenExtremes,
    std: Number,
) -> Ratio:
    """std: of ρ, which whole batches and merged shards come by in different ways."""
    return Ratio(
        ratio_mean=sums.token_mean(divergences.ratio),
        ratio_min=extremes.number(extremes.ratio_min),
        ratio_max=extremes.number(extremes.ratio_max),
        ratio_std=std,
        ratio_abs_dev_mean=sums.token_mean(divergences.ratio_abs_dev),
        ratio_share_outside_0p5_2=counts.share(counts.ratio_below_wide + counts.ratio_above_wide),
        ratio_share_above_2=counts.share(counts.ratio_above_wide),
        ratio_share_below_0p5=counts.share(counts.ratio_below_wide),
        ratio_share_outside_0p9_1p1=counts.share(counts.ratio_outside_narrow),
        ratio_share_outside_0p8_1p2=counts.share(counts.ratio_outside_ppo),
        abs_diff_share_above_ln2=counts.share(counts.extreme_diff),
    )
