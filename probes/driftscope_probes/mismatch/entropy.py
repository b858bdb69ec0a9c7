"""Mismatch against entropy: a mismatch matters more where the policy is sure of its tokens.

In: entropy per token and the k3 mean. Out: numbers; entropies in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import Number, Undefined, finite, mean

NOT_POSITIVE = Undefined("the mean entropy is not above 0")


@dataclass(frozen=True, slots=True)
class MismatchEntropy:
    entropy_mean: Number
    kl_k3_entropy_ratio: Number  # mean k3 over mean entropy (prime-rl kl_ent_ratio)


def mismatch_entropy(entropy: FloatArray, kl_k3: Number) -> MismatchEntropy:
    """entropy: [kept] nats; a NaN or infinity among them leaves both numbers undefined."""
    entropy_mean = mean(entropy)
    return MismatchEntropy(
        entropy_mean=entropy_mean, kl_k3_entropy_ratio=_quotient(kl_k3, entropy_mean)
    )


def _quotient(above: Number, below: Number) -> Number:
    if isinstance(below, Undefined):
        return below
    if isinstance(above, Undefined):
        return above
    return finite(above / below) if below > 0 else NOT_POSITIVE
