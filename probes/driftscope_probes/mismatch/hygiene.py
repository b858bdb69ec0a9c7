"""Hygiene: what took part in the comparison, what was left out, and what looks wrong.

In: PairedLogprobs and its TokenPass. Out: counts. Nothing is dropped without being counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import IntArray
from driftscope_probes.mismatch.fused.layouts import ODDITIES, TokenPass
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs


@dataclass(frozen=True, slots=True)
class Hygiene:
    """Counts of tokens, of the unmasked ones where not said otherwise.

    An exact zero is a certain token, or a placeholder of an engine that returned nothing; a
    positive log-probability is no log-probability at all. Both stay in the statistics.
    """

    tokens: int  # in the statistics
    sequences: int  # with at least one such token
    masked_tokens: int
    nonfinite_tokens: int  # left out: a side is NaN or infinite, or Δ overflows
    nonfinite_sequences: int  # with at least one token left out for that
    empty_sequences: int  # without any token in the statistics
    rollout_nonfinite: int
    trainer_nonfinite: int
    rollout_zero: int  # exactly 0.0 or -0.0
    trainer_zero: int
    rollout_positive: int  # finite and above 0
    trainer_positive: int


def hygiene(pair: PairedLogprobs, found: TokenPass) -> Hygiene:
    kept, unmasked = found.rows["kept"], found.rows["unmasked"]
    tokens, all_unmasked = int(kept.sum()), int(unmasked.sum())
    sequences = int(np.count_nonzero(kept))
    odd = {name: int(found.oddities[name][0]) for name in ODDITIES.names or ()}
    return Hygiene(
        tokens=tokens,
        sequences=sequences,
        masked_tokens=pair.rollout.size - all_unmasked,
        nonfinite_tokens=all_unmasked - tokens,
        nonfinite_sequences=int(np.count_nonzero(unmasked > kept)),
        empty_sequences=kept.size - sequences,
        rollout_nonfinite=odd["rollout_nonfinite"],
        trainer_nonfinite=odd["trainer_nonfinite"],
        rollout_zero=odd["rollout_zero"],
        trainer_zero=odd["trainer_zero"],
        rollout_positive=odd["rollout_positive"],
        trainer_positive=odd["trainer_positive"],
    )


def unmasked_lengths(pair: PairedLogprobs) -> IntArray:
    """[sequences given] unmasked tokens of each sequence."""
    if pair.mask is None:
        return np.diff(pair.cu_seqlens)
    return np.diff(np.searchsorted(np.flatnonzero(pair.mask), pair.cu_seqlens))
