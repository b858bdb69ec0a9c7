"""NeMo-RL's Jensen-Shannon divergence error.

In: SequenceSums and DivergenceSums. Out: its mean over tokens, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class JSDivergence:
    """As NeMo-RL codes it, on the sampled tokens alone; not the textbook sum over a vocabulary."""

    js_divergence: Number  # mean of ln cosh(Δ/2) (NeMo-RL js_divergence_error)


def js_divergence(sums: SequenceSums, divergences: DivergenceSums) -> JSDivergence:
    return JSDivergence(js_divergence=sums.token_mean(divergences.js_divergence))
