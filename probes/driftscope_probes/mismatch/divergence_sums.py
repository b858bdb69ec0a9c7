"""Per-sequence sums of the terms that only token and sequence means need, not the plots.

In: TokenPass. Out: DivergenceSums, one number per sequence each.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.fused.layouts import TokenPass


@dataclass(frozen=True, slots=True)
class DivergenceSums:
    """Sums over the kept tokens of each sequence that has any; overflow shows as infinity."""

    rollout_logprob: FloatArray  # nats
    trainer_logprob: FloatArray  # nats
    ratio: FloatArray  # Σ ρ
    ratio_abs_dev: FloatArray  # Σ |ρ − 1|
    ratio_diff: FloatArray  # Σ ρΔ
    truncated_ratio: FloatArray  # Σ min(ρ, 2)
    truncated_ratio_square: FloatArray  # Σ min(ρ, 2)²
    mult_error: FloatArray  # Σ exp(|Δ|)
    prob_diff: FloatArray  # Σ (p_trainer − p_rollout)
    kl_reverse_k3: FloatArray  # Σ (1/ρ − 1 + Δ)
    js_divergence: FloatArray  # Σ ln cosh(Δ/2)
    binary_kl: FloatArray
    chi2: FloatArray  # Σ (ρ² − 1), Δ clamped


def divergence_sums(found: TokenPass) -> DivergenceSums:
    of = found.sums[found.rows["kept"] > 0]
    return DivergenceSums(
        rollout_logprob=of["rollout_logprob"],
        trainer_logprob=of["trainer_logprob"],
        ratio=of["ratio"],
        ratio_abs_dev=of["ratio_abs_dev"],
        ratio_diff=of["ratio_diff"],
        truncated_ratio=of["truncated_ratio"],
        truncated_ratio_square=of["truncated_ratio_square"],
        mult_error=of["mult_error"],
        prob_diff=of["prob_diff"],
        kl_reverse_k3=of["kl_reverse_k3"],
        js_divergence=0.5 * of["double_js"],
        binary_kl=of["binary_kl"],
        chi2=of["chi2"],
    )
