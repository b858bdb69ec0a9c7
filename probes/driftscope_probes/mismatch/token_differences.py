"""The shared per-token pass: Δ, |Δ| and both probabilities of every token that counts.

In: Tokens. Out: TokenDifferences in float64, computed once and read by every concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.number import FloatArray, IntArray, LogprobArray
from driftscope_probes.tokens import Tokens

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class TokenDifferences:
    """Tokens that are unmasked and have a finite Δ, and the sequences that hold any of them.

    Δ = logp_trainer − logp_rollout. A token is left out when either side is NaN or infinite, or
    when the difference itself overflows float64; hygiene.py counts what was left out.
    """

    rollout_logprob: FloatArray  # [kept] nats
    trainer_logprob: FloatArray  # [kept] nats
    diff: FloatArray  # [kept] Δ, nats
    abs_diff: FloatArray  # [kept] |Δ|, nats
    response_start: IntArray  # [sequences] where each sequence starts in the given arrays
    position: IntArray | None  # [kept] index in the given arrays; None: every token was kept
    sequence_index: IntArray  # [sequences] index among the given sequences
    start: IntArray  # [sequences] first kept token of each sequence
    length: IntArray  # [sequences] n_i, kept tokens of each sequence, at least 1

    @cached_property
    def rollout_prob(self) -> FloatArray:
        return _probability(self.rollout_logprob)

    @cached_property
    def trainer_prob(self) -> FloatArray:
        return _probability(self.trainer_logprob)

    def kept(self, given: NDArray[Scalar]) -> NDArray[Scalar]:
        """[kept] of an array [tokens] that belongs to the given log-probabilities."""
        return given if self.position is None else given[self.position]

    def response_index(self) -> IntArray:
        """[kept] index of each token in its sequence, from 0; masked tokens count too."""
        given = np.arange(self.diff.size) if self.position is None else self.position
        return given - np.repeat(self.response_start, self.length)


def token_differences(tokens: Tokens) -> TokenDifferences:
    """One pass over the tokens; subtraction only after widening to float64.

    A float32 subtraction would round Δ to the rounding of the log-probabilities themselves,
    which is the very quantity being measured.
    """
    position = None if tokens.mask is None or tokens.mask.all() else np.flatnonzero(tokens.mask)
    rollout = _widened(tokens.rollout, position)
    trainer = _widened(tokens.trainer, position)
    with np.errstate(over="ignore", invalid="ignore"):
        diff = trainer - rollout
    kept = np.isfinite(diff)
    if not kept.all():
        diff, rollout, trainer = diff[kept], rollout[kept], trainer[kept]
        position = np.flatnonzero(kept) if position is None else position[kept]
    limits = tokens.cu_seqlens if position is None else np.searchsorted(position, tokens.cu_seqlens)
    length = np.diff(limits)
    sequence_index = np.flatnonzero(length)
    return TokenDifferences(
        rollout_logprob=rollout,
        trainer_logprob=trainer,
        diff=diff,
        abs_diff=np.abs(diff),
        response_start=tokens.cu_seqlens[:-1][sequence_index],
        position=position,
        sequence_index=sequence_index,
        start=limits[:-1][sequence_index],
        length=length[sequence_index],
    )


def _probability(logprobs: FloatArray) -> FloatArray:
    # A positive log-probability may overflow here; the statistics then say Undefined.
    with np.errstate(over="ignore"):
        return np.exp(logprobs)


def _widened(logprobs: LogprobArray, position: IntArray | None) -> FloatArray:
    selected = logprobs if position is None else logprobs[position]
    return selected.astype(np.float64, copy=False)
