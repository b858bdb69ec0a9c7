"""Confident disagreements: likely for the rollout side, far less so for the trainer.

In: TokenCounts. Out: how many tokens, and their share.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.number import Number
from driftscope_probes.mismatch.token_counts import TokenCounts


@dataclass(frozen=True, slots=True)
class ConfidentDisagreement:
    """logp_rollout > −0.7 and Δ < −2 (martingale 0.2.0, which holds one such token for an error).

    Rounding does not do this: such tokens point to other weights, other text or a wrong mask.
    """

    confident_disagreements: int
    confident_disagreement_share: Number  # of tokens


def confident_disagreement(counts: TokenCounts) -> ConfidentDisagreement:
    found = counts.confident_disagreements
    return ConfidentDisagreement(
        confident_disagreements=found,
        confident_disagreement_share=counts.share(found),
    )
