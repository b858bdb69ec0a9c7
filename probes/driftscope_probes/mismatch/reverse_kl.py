"""KL(trainer ‖ rollout) seen from rollout samples: NeMo-RL's diagnostic and the unbiased estimator.

In: SequenceSums and DivergenceSums. Out: token means in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class ReverseKL:
    """The tokens were drawn from the rollout side, so the k3 form estimates no KL without bias.

    It explodes where the rollout side holds a token for far likelier than the trainer does: at
    Δ = −10 it is 22 015 where kl_k3 is 9.
    """

    kl_reverse_k3: Number  # mean(1/ρ − 1 + Δ) (NeMo-RL policy_kl_error)
    kl_reverse_unbiased: Number  # mean(ρΔ): unbiased, either sign


def reverse_kl(sums: SequenceSums, divergences: DivergenceSums) -> ReverseKL:
    return ReverseKL(
        kl_reverse_k3=sums.token_mean(divergences.kl_reverse_k3),
        kl_reverse_unbiased=sums.token_mean(divergences.ratio_diff),
    )
