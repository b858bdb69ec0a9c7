"""The tokens that frameworks' own metrics are taken over, and the values those give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from driftscope_probes.mismatch.counts import unmasked_lengths
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.terms import k3_terms
from driftscope_probes.mismatch.tokens import PairedLogprobs

# None: the framework itself would log NaN or an infinity, or would refuse the batch.
AliasValues: TypeAlias = dict[str, float | None]


def alias_values(values: Mapping[str, float], prefix: str = "") -> AliasValues:
    return {
        prefix + name: float(value) if math.isfinite(value) else None
        for name, value in values.items()
    }


def mean(values: FloatArray | BoolArray) -> float:
    """NaN, not a warning, where there is nothing to average."""
    return float(values.mean()) if values.size else math.nan


def biggest(values: FloatArray) -> float:
    return float(values.max()) if values.size else math.nan


def smallest(values: FloatArray) -> float:
    return float(values.min()) if values.size else math.nan


def unbiased_std(values: FloatArray) -> float:
    """torch.std: divides by n − 1, NaN for a single value."""
    return float(values.std(ddof=1)) if values.size > 1 else math.nan


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
