"""Multiplicative probability error: by which factor the two probabilities of a token differ.

In: TokenDifferences. Out: mean of exp(|Δ|), ideally 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.number import Number, mean
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True)
class MultiplicativeError:
    token_mult_prob_error: Number  # NeMo-RL, which investigates from 1.05 on


def multiplicative_error(tokens: TokenDifferences) -> MultiplicativeError:
    with np.errstate(over="ignore"):
        return MultiplicativeError(token_mult_prob_error=mean(np.exp(tokens.abs_diff)))
