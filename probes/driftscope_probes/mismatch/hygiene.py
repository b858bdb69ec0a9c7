"""Hygiene: what took part in the comparison, what was left out, and what looks wrong.

In: PairedLogprobs and its TokenDifferences. Out: counts. Nothing is dropped without being counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import IntArray, LogprobArray
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs
from driftscope_probes.mismatch.token_differences import TokenDifferences


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


@dataclass(frozen=True, slots=True)
class _Side:
    nonfinite: int
    zero: int
    positive: int


def hygiene(pair: PairedLogprobs, tokens: TokenDifferences) -> Hygiene:
    unmasked = pair.rollout.size if pair.mask is None else int(np.count_nonzero(pair.mask))
    rollout = _count(_unmasked(pair.rollout, pair))
    trainer = _count(_unmasked(pair.trainer, pair))
    return Hygiene(
        tokens=tokens.diff.size,
        sequences=tokens.length.size,
        masked_tokens=pair.rollout.size - unmasked,
        nonfinite_tokens=unmasked - tokens.diff.size,
        nonfinite_sequences=_incomplete_sequences(pair, tokens),
        empty_sequences=pair.cu_seqlens.size - 1 - tokens.length.size,
        rollout_nonfinite=rollout.nonfinite,
        trainer_nonfinite=trainer.nonfinite,
        rollout_zero=rollout.zero,
        trainer_zero=trainer.zero,
        rollout_positive=rollout.positive,
        trainer_positive=trainer.positive,
    )


def unmasked_lengths(pair: PairedLogprobs) -> IntArray:
    """[sequences given] unmasked tokens of each sequence."""
    if pair.mask is None:
        return np.diff(pair.cu_seqlens)
    return np.diff(np.searchsorted(np.flatnonzero(pair.mask), pair.cu_seqlens))


def _incomplete_sequences(pair: PairedLogprobs, tokens: TokenDifferences) -> int:
    in_statistics = np.zeros(pair.cu_seqlens.size - 1, dtype=np.int64)
    in_statistics[tokens.sequence_index] = tokens.length
    return int(np.count_nonzero(unmasked_lengths(pair) > in_statistics))


def _unmasked(logprobs: LogprobArray, pair: PairedLogprobs) -> LogprobArray:
    return logprobs if pair.mask is None else logprobs[pair.mask]


def _count(logprobs: LogprobArray) -> _Side:
    return _Side(
        nonfinite=int(logprobs.size - np.count_nonzero(np.isfinite(logprobs))),
        zero=int(np.count_nonzero(logprobs == 0)),
        positive=int(np.count_nonzero((logprobs > 0) & (logprobs < np.inf))),
    )
