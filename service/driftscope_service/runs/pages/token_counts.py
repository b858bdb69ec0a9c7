"""What the plots of a step count over its tokens, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_service.runs.store.token_columns import TokenBlock


@dataclass(frozen=True, slots=True, eq=False)
class KeptTokens:
    rollout: NDArray[np.float64]  # [kept], nats
    trainer: NDArray[np.float64]  # [kept], nats
    diff: NDArray[np.float64]  # [kept], trainer − rollout: exact in float64
    abs_diff: NDArray[np.float64]  # [kept]
    index: NDArray[np.int64]  # [kept], place in its sequence, masked tokens counted
    cu_seqlens: NDArray[np.int64]  # [sequences + 1], into the kept ones


def kept_tokens(block: TokenBlock) -> KeptTokens:
    starts = np.repeat(block.cu_seqlens[:-1], np.diff(block.cu_seqlens))
    index = np.arange(block.mask.size) - starts
    kept = block.mask & np.isfinite(block.rollout) & np.isfinite(block.trainer)
    rollout, trainer, limits = block.rollout, block.trainer, block.cu_seqlens
    if not kept.all():
        rollout, trainer, index = rollout[kept], trainer[kept], index[kept]
        limits = np.concatenate([[0], np.cumsum(kept)])[limits]
    wide = rollout.astype(np.float64), trainer.astype(np.float64)
    diff = wide[1] - wide[0]
    return KeptTokens(*wide, diff, np.abs(diff), index, limits)


#: Cells of a quarter nat from −16 (a probability of 1e-7) to 0; the outer ones take the rest.
CELL: Final = 0.25
CELLS: Final = 64
LOWEST: Final = -CELL * CELLS


@dataclass(slots=True)
class DensityCounts:
    counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(CELLS * CELLS, dtype=np.int64)
    )

    def add(self, tokens: KeptTokens) -> None:
        place = _cell(tokens.rollout) * CELLS + _cell(tokens.trainer)
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


#: 0, 1, 2, 3, 4, 6, 8, 12, …: two bins per octave, beyond the longest step that is accepted.
INDEX_EDGES: Final = np.array(
    [0, 1, 2, 3, *(edge for power in range(2, 25) for edge in (2**power, 3 * 2 ** (power - 1)))]
)


def index_bins(tokens: KeptTokens) -> NDArray[np.int64]:
    found = np.searchsorted(INDEX_EDGES, tokens.index, side="right") - 1
    return np.asarray(np.minimum(found, INDEX_EDGES.size - 2), dtype=np.int64)


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
