"""The sequences of a step on which both sides differ most, by three measures, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np

from driftscope_service.web.step.kept_tokens import KeptTokens

Order: TypeAlias = Literal["mean", "largest", "sum"]
ORDERS: Final[tuple[Order, ...]] = ("mean", "largest", "sum")
SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class SequenceDifference:
    sequence: int  # number in the step
    tokens: int  # that count
    mean: float  # of |Δ|, nats
    largest: float  # |Δ|, nats
    largest_at: int  # index of that token in the sequence
    sum: float  # of Δ, nats: the logarithm of the sequence's ratio


@dataclass(slots=True)
class WorstSequences:
    """By order: mean and largest of |Δ|, and the size of the sum."""

    of: dict[Order, list[SequenceDifference]] = field(
        default_factory=lambda: {order: [] for order in ORDERS}
    )

    def add(self, tokens: KeptTokens, first_sequence: int) -> None:
        lengths = np.diff(tokens.cu_seqlens)
        filled = np.flatnonzero(lengths)
        if not filled.size:
            return
        # Empty sequences left out, the starts of the others rise, as reduceat wants it.
        starts = tokens.cu_seqlens[filled]
        means = np.add.reduceat(tokens.abs_diff, starts) / lengths[filled]
        largest = np.maximum.reduceat(tokens.abs_diff, starts)
        sums = np.add.reduceat(tokens.diff, starts)
        for order, measure in (("mean", means), ("largest", largest), ("sum", np.abs(sums))):
            most = np.argsort(-measure, kind="stable")[:SHOWN]
            found = [
                _difference(tokens, int(filled[place]), first_sequence, float(sums[place]))
                for place in most.tolist()
            ]
            self._merge(order, found)  # type: ignore[arg-type]  # a literal of the line above

    def _merge(self, order: Order, found: list[SequenceDifference]) -> None:
        def size(one: SequenceDifference) -> tuple[float, int]:
            return -abs(getattr(one, order)), one.sequence

        self.of[order] = sorted([*self.of[order], *found], key=size)[:SHOWN]


def _difference(
    tokens: KeptTokens, place: int, first_sequence: int, total: float
) -> SequenceDifference:
    within = slice(int(tokens.cu_seqlens[place]), int(tokens.cu_seqlens[place + 1]))
    sizes = tokens.abs_diff[within]
    at = int(np.argmax(sizes))
    return SequenceDifference(
        sequence=first_sequence + place,
        tokens=sizes.size,
        mean=float(sizes.mean()),
        largest=float(sizes[at]),
        largest_at=int(tokens.index[within][at]),
        sum=total,
    )
