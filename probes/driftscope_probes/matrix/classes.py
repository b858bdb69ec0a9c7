"""Classes of places that give the same bits, and how far classes lie apart. Free of torch.

In: the scores of every place on one subject. Out: classes, and one comparison per pair of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.matrix.work import Scores, same_bits

Classes = tuple[tuple[str, ...], ...]
"""Names of places; classes and the places in them in the order of the report."""


@dataclass(frozen=True, slots=True)
class FirstDifference:
    sequence: int
    token: int  # of the response
    first: float | int  # log-probability in nats, or the id of the token
    second: float | int


@dataclass(frozen=True, slots=True)
class Difference:
    """Of the second place against the first, over tokens that both gave in the same context."""

    tokens: int  # compared
    bitwise_equal_fraction: float | None  # None: no token was compared
    abs_diff_mean: float | None  # nats, over tokens that are finite at both; None: none is
    abs_diff_max: float | None
    kl_k3: float | None
    not_finite: int
    differing_tokens: int | None  # greedy only: positions with another token
    first_difference: FirstDifference | None


def classes_of(scores: Mapping[str, Scores]) -> Classes:
    """`scores`: by name of the place."""
    found: list[list[str]] = []
    for name, own in scores.items():
        alike = next((one for one in found if equal(scores[one[0]], own)), None)
        if alike is None:
            found.append([name])
        else:
            alike.append(name)
    return tuple(map(tuple, found))


def equal(first: Scores, second: Scores) -> bool:
    return same_bits(first.logprobs, second.logprobs) and (
        first.tokens is None or np.array_equal(first.tokens, _tokens(second))
    )


def joined(every: Sequence[Classes], names: Sequence[str]) -> Classes:
    """Of places that are together in every one of them. `names`: those that are in every one."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        key = tuple(
            next(index for index, one in enumerate(classes) if name in one) for classes in every
        )
        found.setdefault(key, []).append(name)
    return tuple(map(tuple, found.values()))


def pairs_of(classes: Classes) -> list[tuple[str, str]]:
    """One place stands for its class, whose others have the same bits."""
    return list(combinations([one[0] for one in classes], 2))


def difference(first: Scores, second: Scores) -> Difference:
    compared = np.ones(first.logprobs.shape, np.bool_)
    differing = None
    if first.tokens is not None:
        other = first.tokens != _tokens(second)
        differing = int(other.sum())
        # From the first other token on, the two sequences have different contexts.
        compared = ~np.logical_or.accumulate(other, axis=1)
    a, b = first.logprobs[compared], second.logprobs[compared]
    same = a.view(np.uint32) == b.view(np.uint32)
    finite = np.isfinite(a) & np.isfinite(b)
    delta = b[finite].astype(np.float64) - a[finite].astype(np.float64)
    return Difference(
        tokens=int(compared.sum()),
        bitwise_equal_fraction=_mean(same),
        abs_diff_mean=_mean(np.abs(delta)),
        abs_diff_max=float(np.abs(delta).max()) if delta.size else None,
        # A gap of hundreds of nats overflows; JSON has no word for infinity.
        kl_k3=_finite(_mean(np.expm1(np.minimum(delta, MOST_EXPONENT)) - delta)),
        not_finite=int((~finite).sum()),
        differing_tokens=differing,
        first_difference=_first_difference(first, second),
    )


#: exp(700) is just below the largest float64.
MOST_EXPONENT: Final = 700.0


def _first_difference(first: Scores, second: Scores) -> FirstDifference | None:
    other = first.logprobs.view(np.uint32) != second.logprobs.view(np.uint32)
    values: tuple[NDArray[Any], NDArray[Any]] = (first.logprobs, second.logprobs)
    tokens = first.tokens
    if tokens is not None:
        other |= tokens != _tokens(second)
    # Tokens come before sequences: the earliest token of any sequence is nearest to the cause.
    where = np.argwhere(other.T)
    if not where.size:
        return None
    token, sequence = (int(index) for index in where[0])
    if tokens is not None and tokens[sequence, token] != _tokens(second)[sequence, token]:
        values = (tokens, _tokens(second))
    a, b = (array[sequence, token].item() for array in values)
    if not np.isfinite([a, b]).all():
        return FirstDifference(sequence, token, 0, 0)
    return FirstDifference(sequence, token, a, b)


def _tokens(scores: Scores) -> NDArray[np.int32]:
    assert scores.tokens is not None, "scores of one subject all have tokens or all have none"
    return scores.tokens


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None


def _finite(value: float | None) -> float | None:
    return value if value is None or np.isfinite(value) else None
