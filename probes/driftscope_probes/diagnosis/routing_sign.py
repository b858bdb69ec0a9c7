"""Sign: one thing that corrupt routes show, how often it was seen, and how often chance shows it.

In: counts and the expectation of a stated null. Out: Sign with a bound of its probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from driftscope_probes.tokens import Tokens

SignName: TypeAlias = Literal[
    "repeated_rows", "padding_rows", "shifted_rows", "unrelated_rows", "onset", "onset_at_border"
]
Side: TypeAlias = Literal["rollout", "trainer", "both"]
#: A run has thousands of steps with eight tests each: one false sign in about fifty runs.
SIGNIFICANT: Final = 1e-6

NULLS: Final[Mapping[SignName, str]] = {
    "repeated_rows": "a row equals the one before it independently, at most as often as runs begin",
    "padding_rows": "layers choose independently: each names an expert twice as often as in other "
    "tokens (a router never does), with k = 1 the same one by the frequencies of all tokens",
    "shifted_rows": "a neighbour's route is as likely to fit better as the token's own",
    "unrelated_rows": "near ties alone: layers are independent and replace as many experts as in "
    "the tokens that agree, or as published for bf16 where that is more",
    "onset": "flips are spread evenly over a sequence, with the spread of this step's counts",
    "onset_at_border": "an onset is as likely at every place",
}


@dataclass(frozen=True, slots=True)
class Sign:
    """`expected`: count under the null; `p_value`: an upper bound of its probability, corrected
    for what was tried. `sequence`, `place`: the first occurrence; None where there is none.
    """

    name: SignName
    side: Side
    count: int
    of: int
    expected: float
    p_value: float
    detail: str  # a sentence with its numbers
    sequence: int | None = None
    place: int | None = None  # token of that sequence, from 0
    alternative: str | None = None  # a sound cause that these data cannot tell from corruption

    @property
    def significant(self) -> bool:
        return self.p_value < SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "side": self.side,
            "significant": self.significant,
            "count": self.count,
            "of": self.of,
            "expected": self.expected,
            "p_value": self.p_value,
            "null": NULLS[self.name],
            "sequence": self.sequence,
            "place": self.place,
            "detail": self.detail,
            "alternative": self.alternative,
        }


def tail_bound(count: float, expected: float) -> float:
    """Chernoff's bound of P(X ≥ count) for a sum of independent 0/1 draws of mean `expected`."""
    if count <= expected:
        return 1.0
    if expected <= 0.0:
        return 0.0
    return math.exp(count - expected - count * math.log(count / expected))


def share_tail_bound(share: float, mean: float, draws: int) -> float:
    """Hoeffding's bound that `draws` independent values in [0, 1] of a mean reach a higher share:
    exp(−draws · KL(share ‖ mean)).
    """
    if share <= mean:
        return 1.0
    if mean <= 0.0:
        return 0.0
    divergence = share * math.log(share / mean)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - mean))
    return math.exp(-draws * divergence)


def where(tokens: Tokens, index: int) -> tuple[int, int]:
    """Sequence and place in it of a token."""
    sequence = int(np.searchsorted(tokens.cu_seqlens, index, side="right")) - 1
    return sequence, index - int(tokens.cu_seqlens[sequence])
