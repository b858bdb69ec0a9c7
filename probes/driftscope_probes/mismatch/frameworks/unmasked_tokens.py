"""Every unmasked token of a batch, the unusable ones included: what a framework's formula sees.

In: PairedLogprobs. Out: UnmaskedTokens in float64 with sums per given sequence, empty ones as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.hygiene import unmasked_lengths
from driftscope_probes.mismatch.k3 import k3_terms
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs


@dataclass(frozen=True, slots=True)
class UnmaskedTokens:
    """Nothing is left out here: what becomes of NaN and −∞ is part of a framework's definition."""

    rollout: FloatArray  # [unmasked] nats
    trainer: FloatArray  # [unmasked] nats
    diff: FloatArray  # [unmasked] Δ = trainer − rollout
    ratio: FloatArray  # [unmasked] ρ = exp(Δ)
    k3: FloatArray  # [unmasked] ρ − 1 − Δ
    rollout_prob: FloatArray  # [unmasked]
    trainer_prob: FloatArray  # [unmasked]
    length: IntArray  # [sequences given] unmasked tokens, 0 for an empty sequence
    width: int  # tokens of the longest given sequence: the row length of a padded batch

    def sequence_sum(self, values: FloatArray) -> FloatArray:
        """[sequences given] sums of one value per token; 0 for an empty sequence."""
        return self._reduced(np.add, values)

    def sequence_mean(self, values: FloatArray) -> FloatArray:
        """[sequences given] means of one value per token; 0 for an empty sequence."""
        means: FloatArray = self.sequence_sum(values) / np.maximum(self.length, 1)
        return means

    def sequence_max(self, values: FloatArray) -> FloatArray:
        """[sequences given] maxima of one value per token; 0 for an empty sequence."""
        return self._reduced(np.maximum, values)

    def any_in_sequence(self, flags: BoolArray) -> BoolArray:
        """[sequences given] whether any token of the sequence is flagged."""
        flagged = np.zeros(self.length.size, dtype=np.bool_)
        start = self._starts()
        if start.size:
            flagged[self.length > 0] = np.logical_or.reduceat(flags, start)
        return flagged

    def bounded_ratio(self, bound: float) -> FloatArray:
        """[unmasked] exp of Δ clamped to ±bound nats; NaN stays NaN."""
        return np.clip(self.ratio, float(np.exp(-bound)), float(np.exp(bound)))

    def bounded_k3(self, bound: float) -> FloatArray:
        """[unmasked] k3 of Δ clamped to ±bound nats; computed anew only where that matters."""
        beyond = np.flatnonzero(np.abs(self.diff) > bound)
        if not beyond.size:
            return self.k3
        terms = self.k3.copy()
        terms[beyond] = k3_terms(np.clip(self.diff[beyond], -bound, bound))
        return terms

    def per_token(self, values: FloatArray) -> FloatArray:
        """[unmasked] the value of each token's sequence, from one value per given sequence."""
        return np.repeat(values, self.length)

    def _reduced(self, reduce: np.ufunc, values: FloatArray) -> FloatArray:
        reduced = np.zeros(self.length.size)
        start = self._starts()
        if start.size:
            reduced[self.length > 0] = reduce.reduceat(values, start)
        return reduced

    def _starts(self) -> IntArray:
        """First token of each sequence that has any."""
        starts: IntArray = (np.cumsum(self.length) - self.length)[self.length > 0]
        return starts


def unmasked_tokens(pair: PairedLogprobs) -> UnmaskedTokens:
    rollout, trainer = _widened(pair.rollout, pair), _widened(pair.trainer, pair)
    given = np.diff(pair.cu_seqlens)
    with np.errstate(over="ignore", invalid="ignore"):
        diff = trainer - rollout
        return UnmaskedTokens(
            rollout=rollout,
            trainer=trainer,
            diff=diff,
            ratio=np.exp(diff),
            k3=k3_terms(diff),
            rollout_prob=np.exp(rollout),
            trainer_prob=np.exp(trainer),
            length=unmasked_lengths(pair),
            width=int(given.max()) if given.size else 0,
        )


def _widened(logprobs: LogprobArray, pair: PairedLogprobs) -> FloatArray:
    selected = logprobs if pair.mask is None else logprobs[pair.mask]
    return selected.astype(np.float64, copy=False)
