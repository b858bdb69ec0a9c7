"""The shared per-token pass: Δ, |Δ|, ρ and both probabilities of every token that counts.

In: PairedLogprobs. Out: TokenDifferences in float64, computed once and read by every concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.number import FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.tokens import PairedLogprobs

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class TokenDifferences:
    """Tokens that are unmasked and have a finite Δ, and the sequences that hold any of them.

    Δ = logp_trainer − logp_rollout. A token is left out when either side is NaN or infinite, or
    when the difference itself overflows float64; hygiene.py counts what was left out.
    """

    rollout_logprob: FloatArray  # [kept] nats
    trainer_logprob: FloatArray  # [kept] nats
    diff: FloatArray  # [kept] Δ, nats
    abs_diff: FloatArray  # [kept] |Δ|, nats
    ratio: FloatArray  # [kept] ρ = exp(Δ)
    rollout_prob: FloatArray  # [kept]
    trainer_prob: FloatArray  # [kept]
    prob_abs_diff: FloatArray  # [kept] |p_trainer − p_rollout|
    given_sequences: int  # the empty ones included
    response_start: IntArray  # [sequences] where each sequence starts in the given arrays
    position: IntArray | None  # [kept] index in the given arrays; None: every token was kept
    sequence_index: IntArray  # [sequences] index among the given sequences
    start: IntArray  # [sequences] first kept token of each sequence
    length: IntArray  # [sequences] n_i, kept tokens of each sequence, at least 1

    def sum_by_sequence(self, values: FloatArray) -> FloatArray:
        """Sums [sequences] of one value per kept token [kept]."""
        if not self.start.size:
            return np.zeros(0)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.add.reduceat(values, self.start)

    def kept(self, given: NDArray[Scalar]) -> NDArray[Scalar]:
        """[kept] of an array [tokens] that belongs to the given log-probabilities."""
        return given if self.position is None else given[self.position]

    def response_index(self) -> IntArray:
        """[kept] index of each token in its sequence, from 0; masked tokens count too."""
        given = np.arange(self.diff.size) if self.position is None else self.position
        return given - np.repeat(self.response_start, self.length)


def token_differences(pair: PairedLogprobs) -> TokenDifferences:
    """One pass over the tokens; subtraction only after widening to float64.

    A float32 subtraction would round Δ to the rounding of the log-probabilities themselves,
    which is the very quantity being measured.
    """
    position = None if pair.mask is None or pair.mask.all() else np.flatnonzero(pair.mask)
    rollout = _widened(pair.rollout, position)
    trainer = _widened(pair.trainer, position)
    with np.errstate(over="ignore", invalid="ignore"):
        diff = trainer - rollout
    kept = np.isfinite(diff)
    if not kept.all():
        diff, rollout, trainer = diff[kept], rollout[kept], trainer[kept]
        position = np.flatnonzero(kept) if position is None else position[kept]
    limits = pair.cu_seqlens if position is None else np.searchsorted(position, pair.cu_seqlens)
    length = np.diff(limits)
    sequence_index = np.flatnonzero(length)
    # A positive log-probability may overflow here; the statistics then say Undefined.
    with np.errstate(over="ignore", invalid="ignore"):
        rollout_prob, trainer_prob = np.exp(rollout), np.exp(trainer)
        return TokenDifferences(
            rollout_logprob=rollout,
            trainer_logprob=trainer,
            diff=diff,
            abs_diff=np.abs(diff),
            ratio=np.exp(diff),
            rollout_prob=rollout_prob,
            trainer_prob=trainer_prob,
            prob_abs_diff=np.abs(trainer_prob - rollout_prob),
            given_sequences=pair.cu_seqlens.size - 1,
            response_start=pair.cu_seqlens[:-1][sequence_index],
            position=position,
            sequence_index=sequence_index,
            start=limits[:-1][sequence_index],
            length=length[sequence_index],
        )


def _widened(logprobs: LogprobArray, position: IntArray | None) -> FloatArray:
    selected = logprobs if position is None else logprobs[position]
    return selected.astype(np.float64, copy=False)
