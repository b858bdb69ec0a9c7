"""KL(rollout ‖ trainer) from the sampled tokens: the estimators k1, k2 and k3.

In: SequenceSums. Out: token means in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.number import Number, Undefined
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class KL:
    """Token means of Schulman's three estimators (http://joschu.net/blog/kl-approx.html)."""

    kl_k1: Number  # mean(−Δ): unbiased, either sign (verl kl, OpenRLHF vllm_kl)
    kl_k2: Number  # mean(½Δ²)
    kl_k3: Number  # mean(ρ − 1 − Δ): unbiased, never negative (verl k3_kl, prime-rl mismatch_kl)


def kl(sums: SequenceSums) -> KL:
    diff_mean = sums.token_mean(sums.diff)
    return KL(
        # 0 − x rather than −x: equal inputs give 0.0, not -0.0.
        kl_k1=diff_mean if isinstance(diff_mean, Undefined) else 0.0 - diff_mean,
        kl_k2=sums.token_mean(sums.kl_k2),
        kl_k3=sums.token_mean(sums.kl_k3),
    )
