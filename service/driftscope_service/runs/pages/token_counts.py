"""What the plots of a step count over its tokens, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.token_differences import TokenDifferences
from driftscope_probes.tokens import Tokens

#: Cells of a quarter nat from −16 (a probability of 1e-7) to 0; the outer ones take the rest.
CELL: Final = 0.25
CELLS: Final = 64
LOWEST: Final = -CELL * CELLS


@dataclass(slots=True)
class DensityCounts:
    counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(CELLS * CELLS, dtype=np.int64)
    )

    def add(self, tokens: TokenDifferences) -> None:
        place = _cell(tokens.rollout_logprob) * CELLS + _cell(tokens.trainer_logprob)
        self.counts += np.bincount(place, minlength=CELLS * CELLS)

    def rows(self) -> list[tuple[float, float, int]]:
        """(lower edge of rollout, of trainer, tokens) of every cell with a token."""
        return [
            (LOWEST + CELL * (place // CELLS), LOWEST + CELL * (place % CELLS), count)
            for place, count in enumerate(self.counts.tolist())
            if count
        ]

    def by_rollout(self) -> list[tuple[float, int, int, int]]:
        """Per nat of the rollout: (lower edge, tokens, in the same cell or beside it, more than a
        nat away), for who reads rather than looks."""
        square = self.counts.reshape(CELLS, CELLS)
        away = np.abs(np.subtract.outer(np.arange(CELLS), np.arange(CELLS)))
        per_nat = int(1 / CELL)
        found = []
        for start in range(0, CELLS, per_nat):
            rows = slice(start, start + per_nat)
            tokens = int(square[rows].sum())
            near = int(square[rows][away[rows] <= 1].sum())
            far = int(square[rows][away[rows] > per_nat].sum())
            if tokens:
                found.append((LOWEST + CELL * start, tokens, near, far))
        return found[::-1]


def _cell(logprobs: NDArray[np.float64]) -> NDArray[np.int64]:
    # Clipped before the cast: of a number beyond int64 it would be undefined.
    place = np.clip(np.floor((logprobs - LOWEST) / CELL), 0, CELLS - 1)
    return place.astype(np.int64)


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
    odd: int  # tokens whose value is no log-probability, those that are not finite included


@dataclass(frozen=True, slots=True)
class OddSequence:
    sequence: int  # number in the step
    odd: int  # tokens
    first: int  # index of the first of them in the sequence
    tokens: int  # unmasked


@dataclass(slots=True)
class OddSequences:
    """Those with values that are no log-probabilities, the most of them first."""

    count: int = 0
    first: list[OddSequence] = field(default_factory=list)

    def add(self, tokens: Tokens, odd: NDArray[np.bool_], first_sequence: int) -> None:
        """odd: [tokens]"""
        rows = np.flatnonzero(odd)
        sequence = np.searchsorted(tokens.cu_seqlens, rows, side="right") - 1
        which, starts, counts = np.unique(sequence, return_index=True, return_counts=True)
        self.count += which.size
        most = np.argsort(-counts, kind="stable")[:SHOWN]
        found = [
            OddSequence(
                first_sequence + int(which[one]),
                int(counts[one]),
                int(rows[starts[one]] - tokens.cu_seqlens[which[one]]),
                int(tokens.takes_part[tokens.sequence(int(which[one]))].sum()),
            )
            for one in most.tolist()
        ]
        every = sorted([*self.first, *found], key=lambda one: (-one.odd, one.sequence))
        self.first = every[:SHOWN]


@dataclass(slots=True)
class WorstSequences:
    """By order: mean and largest of |Δ|, and the size of the sum."""

    of: dict[Order, list[SequenceDifference]] = field(
        default_factory=lambda: {order: [] for order in ORDERS}
    )

    def add(self, tokens: TokenDifferences, odd: NDArray[np.int64], first_sequence: int) -> None:
        """odd: [sequences given] tokens whose value is no log-probability."""
        if not tokens.start.size:
            return
        means = np.add.reduceat(tokens.abs_diff, tokens.start) / tokens.length
        largest = np.maximum.reduceat(tokens.abs_diff, tokens.start)
        sums = np.add.reduceat(tokens.diff, tokens.start)
        for order, measure in (("mean", means), ("largest", largest), ("sum", np.abs(sums))):
            most = np.argsort(-measure, kind="stable")[:SHOWN]
            found = [
                _difference(tokens, index, odd, first_sequence, float(sums[index]))
                for index in most.tolist()
            ]
            self._merge(order, found)  # type: ignore[arg-type]  # a literal of the line above

    def _merge(self, order: Order, found: list[SequenceDifference]) -> None:
        def size(one: SequenceDifference) -> tuple[float, int]:
            return -abs(getattr(one, order)), one.sequence

        self.of[order] = sorted([*self.of[order], *found], key=size)[:SHOWN]


def _difference(
    tokens: TokenDifferences,
    index: int,
    odd: NDArray[np.int64],
    first_sequence: int,
    total: float,
) -> SequenceDifference:
    start = int(tokens.start[index])
    sizes = tokens.abs_diff[start : start + int(tokens.length[index])]
    at = start + int(np.argmax(sizes))
    given_index = at if tokens.position is None else int(tokens.position[at])
    return SequenceDifference(
        sequence=first_sequence + int(tokens.sequence_index[index]),
        tokens=sizes.size,
        mean=float(sizes.mean()),
        largest=float(tokens.abs_diff[at]),
        largest_at=given_index - int(tokens.response_start[index]),
        sum=total,
        odd=int(odd[tokens.sequence_index[index]]),
    )
