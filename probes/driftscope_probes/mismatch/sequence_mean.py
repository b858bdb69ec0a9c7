"""A mean seen as a quotient of per-sequence sums: the form in which it can be resampled.

In: SequenceSums. Out: SequenceMean by the name of the mean in the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True, eq=False)
class SequenceMean:
    """Σ sums / Σ weights.

    Both are [sequences given]; sequences without tokens have weight 0. The weight is n_i for a
    mean over tokens, 1 for a mean over sequences.
    """

    sums: FloatArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if self.sums.ndim != 1 or self.sums.shape != self.weights.shape:
            raise TraceError(
                f"sums have shape {self.sums.shape}, weights have shape {self.weights.shape}.",
                remedy="give one sum and one weight per sequence.",
            )


def sequence_means(sums: SequenceSums) -> dict[str, SequenceMean]:
    """The means that get an interval; shape [sequences given], aligned with the given order."""
    per_token = {
        "abs_diff_mean": sums.abs_diff,
        "diff_mean": sums.diff,
        "kl_k1": 0.0 - sums.diff,
        "kl_k2": sums.kl_k2,
        "kl_k3": sums.kl_k3,
        "prob_abs_diff_mean": sums.prob_abs_diff,
    }
    per_sequence = {
        "abs_diff_seq_mean": sums.abs_diff / sums.length,
        "seq_logratio_mean": sums.diff,
    }
    lengths = _spread(sums, sums.length.astype(np.float64))
    ones = _spread(sums, np.ones(sums.length.size))
    over_tokens = {name: SequenceMean(_spread(sums, v), lengths) for name, v in per_token.items()}
    over_sequences = {
        name: SequenceMean(_spread(sums, v), ones) for name, v in per_sequence.items()
    }
    return over_tokens | over_sequences


def _spread(sums: SequenceSums, values: FloatArray) -> FloatArray:
    """Put the values of the sequences with tokens at their places; empty sequences get 0."""
    spread = np.zeros(sums.given_sequences)
    spread[sums.sequence_index] = values
    return spread
