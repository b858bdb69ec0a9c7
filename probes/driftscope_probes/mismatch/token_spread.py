"""Standard deviations that merge: the spread within each sequence, and between the sequences.

In: TokenPass. Out: TokenSpread, one number per sequence and quantity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, ONE_VALUE, Number, finite
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True, eq=False)
class TokenSpread:
    """Σ (x − mean of the sequence)² over the tokens of each sequence, and Σ ρ²; [sequences]."""

    diff: FloatArray
    ratio: FloatArray
    prob_abs_diff: FloatArray
    ratio_square: FloatArray


def token_spread(found: TokenPass) -> TokenSpread:
    present = found.rows["kept"] > 0
    of, sums, length = found.spread[present], found.sums[present], found.rows["kept"][present]
    with np.errstate(over="ignore", invalid="ignore"):
        ratio_square = of["ratio"] + sums["ratio"] * (sums["ratio"] / length)
    return TokenSpread(
        diff=of["diff"],
        ratio=of["ratio"],
        prob_abs_diff=of["prob_abs_diff"],
        ratio_square=ratio_square,
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
