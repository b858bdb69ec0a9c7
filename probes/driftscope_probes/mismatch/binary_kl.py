"""Binary KL per token: the measure of OpenRLHF's binary_kl gate.

In: SequenceSums, DivergenceSums and TokenExtremes. Out: numbers in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_extremes import TokenExtremes


@dataclass(frozen=True, slots=True)
class BinaryKL:
    """KL of the two-way choice between the sampled token and all others, clamped as in OpenRLHF."""

    binary_kl_mean: Number
    binary_kl_max: Number


def binary_kl(sums: SequenceSums, divergences: DivergenceSums, extremes: TokenExtremes) -> BinaryKL:
    return BinaryKL(
        binary_kl_mean=sums.token_mean(divergences.binary_kl),
        binary_kl_max=extremes.number(extremes.binary_kl_max),
    )
