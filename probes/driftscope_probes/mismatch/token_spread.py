"""Standard deviations that merge: the spread within each sequence, and between the sequences.

In: TokenDifferences. Out: TokenSpread, one number per sequence and quantity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import NO_TOKENS, ONE_VALUE, Number, finite
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True, eq=False)
class TokenSpread:
    """Σ (x − mean of the sequence)² over the tokens of each sequence, and Σ ρ²; [sequences]."""

    diff: FloatArray
    ratio: FloatArray
    prob_abs_diff: FloatArray
    ratio_square: FloatArray


def token_spread(tokens: TokenDifferences) -> TokenSpread:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return TokenSpread(
            diff=_within(tokens, tokens.diff),
            ratio=_within(tokens, tokens.ratio),
            prob_abs_diff=_within(tokens, tokens.prob_abs_diff),
            ratio_square=tokens.sum_by_sequence(tokens.ratio * tokens.ratio),
        )


def unbiased_std_of(sums: SequenceSums, values: FloatArray, within: FloatArray) -> Number:
    """Of all tokens together, from the sums and the spread of each sequence (Chan et al. 1979)."""
    count = int(sums.length.sum())
    if not count:
        return NO_TOKENS
    if count == 1:
        return ONE_VALUE
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        between = values / sums.length - values.sum() / count
        squares = within.sum() + np.dot(sums.length, between * between)
        return finite(float(np.sqrt(squares / (count - 1))))


def _within(tokens: TokenDifferences, values: FloatArray) -> FloatArray:
    means = tokens.sum_by_sequence(values) / tokens.length
    deviations = values - np.repeat(means, tokens.length)
    deviations *= deviations
    return tokens.sum_by_sequence(deviations)
