"""Bitwise equality: which log-probabilities have the very same bits on both sides.

In: TokenPass. Out: shares, counts and the first place where a response differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import IntArray
from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import Number, Undefined

ALL_MASKED = Undefined("every token is masked")
NONE_DIFFERS = Undefined("no token differs")


@dataclass(frozen=True, slots=True)
class Bitwise:
    """Over all unmasked tokens, the non-finite ones too: a NaN on one side is a difference.

    Unequal dtypes meet in float64, which is exact. 0.0 and -0.0 differ; two NaNs of the same bits
    are equal. Places count from 0 within the response, masked tokens included.
    """

    bitwise_equal_fraction: Number  # of tokens
    bitwise_equal_sequences: int  # all their unmasked tokens are equal, and they have one
    bitwise_equal_sequence_fraction: Number  # of the sequences with an unmasked token
    first_differing_token: int | Undefined  # smallest first place over the sequences
    first_differing_token_median: Number  # over the sequences that differ


@dataclass(frozen=True, slots=True, eq=False)
class DifferingTokens:
    """What the numbers above are made of; two of them add up to those of both sets of sequences."""

    tokens: int  # unmasked
    sequences: int  # with an unmasked token
    differing: int  # tokens
    first: IntArray  # [sequences that differ] first differing place of each

    def merged(self, other: DifferingTokens) -> DifferingTokens:
        return DifferingTokens(
            tokens=self.tokens + other.tokens,
            sequences=self.sequences + other.sequences,
            differing=self.differing + other.differing,
            first=np.concatenate([self.first, other.first]),
        )


def bitwise(found: DifferingTokens) -> Bitwise:
    tokens, sequences, first = found.tokens, found.sequences, found.first
    equal_sequences = sequences - first.size
    return Bitwise(
        bitwise_equal_fraction=(tokens - found.differing) / tokens if tokens else ALL_MASKED,
        bitwise_equal_sequences=equal_sequences,
        bitwise_equal_sequence_fraction=equal_sequences / sequences if tokens else ALL_MASKED,
        first_differing_token=int(first.min()) if first.size else NONE_DIFFERS,
        first_differing_token_median=float(np.median(first)) if first.size else NONE_DIFFERS,
    )


def differing_tokens(found: TokenPass) -> DifferingTokens:
    first = found.rows["first_differing"]
    return DifferingTokens(
        tokens=int(found.oddities["unmasked"][0]),
        sequences=int(np.count_nonzero(found.rows["unmasked"])),
        differing=int(found.oddities["differing"][0]),
        first=first[first >= 0],
    )
