"""Two outputs of one request, byte by byte: how many tokens and log-probabilities are equal.

A log-probability means the same thing on both sides only while all tokens before it and its own
are equal. From the first differing token on, every token and log-probability counts as differing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.determinism.batch import Output


@dataclass(frozen=True, slots=True)
class Difference:
    """Counts over the tokens of one row; `max_*` over the tokens that are comparable."""

    tokens: int
    equal_tokens: int
    equal_logprobs: int
    max_abs_diff: float | None  # nats; None: nothing comparable and finite
    max_ulps: int | None
    first_token: int | None  # index of the first differing token
    first_logprob: int | None  # index of the first differing bit of a log-probability

    @property
    def equal(self) -> bool:
        return self.equal_tokens == self.tokens == self.equal_logprobs


def compare_outputs(reference: Output, other: Output) -> Difference:
    """Of different lengths, what one of them lacks counts as differing."""
    longest = max(reference.token_ids.size, other.token_ids.size)
    shared = min(reference.token_ids.size, other.token_ids.size)
    agree = reference.token_ids[:shared] == other.token_ids[:shared]
    comparable = shared if agree.all() else int(np.argmin(agree))
    left, right = reference.logprobs[:comparable], other.logprobs[:comparable]
    same_bits = left.view(np.uint32) == right.view(np.uint32)
    unequal = np.flatnonzero(~same_bits)
    finite = np.isfinite(left) & np.isfinite(right)
    apart = np.abs(left[finite].astype(np.float64) - right[finite].astype(np.float64))
    first_token = comparable if comparable < longest else None
    return Difference(
        tokens=longest,
        equal_tokens=comparable,
        equal_logprobs=int(same_bits.sum()),
        max_abs_diff=float(apart.max()) if apart.size else None,
        max_ulps=int(np.abs(_rank(left) - _rank(right)).max()) if comparable else None,
        first_token=first_token,
        first_logprob=int(unequal[0]) if unequal.size else first_token,
    )


def _rank(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Place of each float32 among all, so that neighbours are 1 apart; -0 and +0 are one place."""
    bits = values.view(np.uint32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)
