"""The ways of an op as a product of independent choices.

In: axes, each a row of choices, the plain one first. Out: every combination, those nearest to the
plain way first, with the name, reason and words that its departures give it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from driftscope_kernels.compare_ops.variant import Reason

PLAIN: Final = "plain"
#: Of several departures, the reason that moves numbers farthest stands for all.
_BY_SIZE: Final[tuple[Reason, ...]] = ("dtype", "rounding_point", "primitive", "reduction_order")


@dataclass(frozen=True, slots=True)
class Choice:
    """One option of one axis. The plain option of an axis has neither reason nor words."""

    name: str
    reason: Reason = "rounding_point"
    says: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """One choice per axis, in the order of the axes."""

    choices: tuple[str, ...]
    name: str
    reason: Reason
    says: str


def ways(plain_says: str, *axes: Sequence[Choice]) -> Iterator[Way]:
    """By number of departures from the plain way, which is the first."""
    for chosen in sorted(product(*axes), key=lambda chosen: len(_departures(chosen))):
        yield _way(plain_says, chosen)


def _departures(chosen: Sequence[Choice]) -> list[Choice]:
    return [choice for choice in chosen if choice.says]


def _way(plain_says: str, chosen: tuple[Choice, ...]) -> Way:
    departures = _departures(chosen)
    names = tuple(choice.name for choice in chosen)
    if not departures:
        return Way(names, PLAIN, "rounding_point", plain_says)
    reason = min((choice.reason for choice in departures), key=_BY_SIZE.index)
    says = ", ".join(choice.says for choice in departures)
    return Way(names, "+".join(choice.name for choice in departures), reason, says)
