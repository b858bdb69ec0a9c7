"""How many tokens have which pair of log-probabilities, on a square of cells, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_service.web.step.kept_tokens import KeptTokens

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
