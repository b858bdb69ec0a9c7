"""Coordinate sums: |Δ| by an exact whole number, a place or a label, block by block.

In: tokens and their coordinate. Out: rows of a profile, and the cut that accounts for most of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from driftscope_probes.diagnosis.split import best_cut
from driftscope_probes.mismatch.number import FloatArray, IntArray, dot

#: Coordinates beyond this count as one: no context is longer.
MOST: Final = 2**20
#: Groups of equally many tokens in which a slow rise is looked for.
GROUPS: Final = 16
#: Variance of the log of a normal variable's size is π²/8; less than this within is not noise.
LEAST_VARIANCE: Final = 0.1

#: (from, below, tokens, mean |Δ|, mean Δ, largest |Δ|)
Row = tuple[float, float, int, float, float, float]


@dataclass(frozen=True, slots=True)
class Cut:
    """Coordinates in two groups: those whose differences are larger, and the rest."""

    dirty: tuple[int, ...] | None  # labels; None: a run of coordinates
    at: int  # first or last coordinate of the run
    gain: float  # χ²(1) by chance: sum of squares of log sizes explained
    contrast: float  # log of how many times as large
    inside: float  # mean |Δ|, nats
    outside: float
    inside_tokens: int
    outside_tokens: int


@dataclass(slots=True)
class CoordinateSums:
    """Coordinates from `first` on; every array [coordinates so far]."""

    first: int
    tokens: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    abs_diff: FloatArray = field(default_factory=lambda: np.zeros(0))
    diff: FloatArray = field(default_factory=lambda: np.zeros(0))
    largest: FloatArray = field(default_factory=lambda: np.zeros(0))
    open_tokens: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    size: FloatArray = field(default_factory=lambda: np.zeros(0))  # of open tokens
    square: float = 0.0  # of the sizes of all open tokens

    def add(
        self, coordinate: IntArray, diff: FloatArray, size: FloatArray, is_open: FloatArray
    ) -> None:
        """[n] each. size: log of the difference on the logits, 0 where a token is not open."""
        if not coordinate.size:
            return
        place = np.clip(coordinate - self.first, 0, MOST - 1)
        self._grow(int(place.max()) + 1)
        count = self.tokens.size
        sizes = np.abs(diff)
        self.tokens += np.bincount(place, minlength=count)
        with np.errstate(over="ignore", invalid="ignore"):
            self.abs_diff += np.bincount(place, sizes, minlength=count)
            self.diff += np.bincount(place, diff, minlength=count)
        np.maximum.at(self.largest, place, sizes)
        self.open_tokens += np.bincount(place, is_open, minlength=count).astype(np.int64)
        self.size += np.bincount(place, size, minlength=count)
        self.square += dot(size, size)

    def _grow(self, count: int) -> None:
        more = count - self.tokens.size
        if more <= 0:
            return
        for name in ("tokens", "abs_diff", "diff", "largest", "open_tokens", "size"):
            values = getattr(self, name)
            setattr(self, name, np.concatenate([values, np.zeros(more, values.dtype)]))

    # Rows -----------------------------------------------------------------------------------

    def each(self) -> list[Row]:
        """One row per coordinate with a token."""
        present = np.flatnonzero(self.tokens)
        return self._rows(present, present + 1)

    def binned(self, cut: int | None = None) -> list[Row]:
        """Two bins an octave, counted from the first coordinate; an edge lies at `cut` as well."""
        end = self.tokens.size
        octaves = [2**power for power in range(1, 21)]
        edges = {0, 1, *octaves, *(3 * edge // 2 for edge in octaves)}
        if cut is not None:
            edges |= {cut - self.first, cut - self.first + 1}
        limits = np.array([*sorted(edge for edge in edges if 0 <= edge < end), end])
        return self._rows(limits[:-1], limits[1:]) if end else []

    def _rows(self, starts: IntArray, stops: IntArray) -> list[Row]:
        found: list[Row] = []
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            tokens = int(self.tokens[start:stop].sum())
            if tokens:
                abs_diff, diff = self.abs_diff[start:stop].sum(), self.diff[start:stop].sum()
                means = float(abs_diff) / tokens, float(diff) / tokens
                largest = float(self.largest[start:stop].max())
                edges = float(start + self.first), float(stop + self.first)
                found.append((*edges, tokens, *means, largest))
        return found

    # Shapes ---------------------------------------------------------------------------------

    def run(self, *, rising: bool) -> Cut | None:
        """From one coordinate on (`rising`), or up to one."""
        present = np.flatnonzero(self.open_tokens)
        order = present if rising else present[::-1]
        chosen = self._cut(order)
        if chosen is None:
            return None
        place = int(order[chosen])
        inside = np.zeros(self.tokens.size, np.bool_)
        inside[place:] = True
        if not rising:
            inside = ~inside
            inside[place] = True
        return self._compared(inside, None, place + self.first)

    def labels(self) -> Cut | None:
        """Labels in two groups, in any order."""
        present = np.flatnonzero(self.open_tokens)
        order = present[np.argsort(self.size[present] / self.open_tokens[present], kind="stable")]
        chosen = self._cut(order)
        if chosen is None:
            return None
        inside = np.zeros(self.tokens.size, np.bool_)
        inside[order[chosen:]] = True
        named = np.flatnonzero(inside)
        return self._compared(inside, tuple((named + self.first).tolist()), int(named[0]))

    def _cut(self, order: IntArray) -> int | None:
        weights = self.open_tokens[order].astype(np.float64)
        return best_cut(weights, self.size[order] / weights)[0] if order.size > 1 else None

    def _compared(self, inside: np.ndarray, labels: tuple[int, ...] | None, at: int) -> Cut | None:
        counts = np.array([self.open_tokens[inside].sum(), self.open_tokens[~inside].sum()])
        if counts.min() < 4:
            return None
        sums = np.array([self.size[inside].sum(), self.size[~inside].sum()])
        mean_in, mean_out = sums / counts
        within = max(self.square - float(np.sum(sums**2 / counts)), 0.0) / counts.sum()
        contrast = float(mean_in - mean_out)
        weight = float(counts[0] * counts[1] / counts.sum())
        tokens = int(self.tokens[inside].sum()), int(self.tokens[~inside].sum())
        return Cut(
            dirty=labels,
            at=at,
            gain=contrast**2 * weight / max(within, LEAST_VARIANCE),
            contrast=contrast,
            inside=float(self.abs_diff[inside].sum()) / max(1, tokens[0]),
            outside=float(self.abs_diff[~inside].sum()) / max(1, tokens[1]),
            inside_tokens=tokens[0],
            outside_tokens=tokens[1],
        )

    def rise(self) -> tuple[float, float, float, float]:
        """Of groups of equally many tokens: rank correlation of their sizes with their order, χ²
        that they explain, and mean |Δ| in the first and in the last of them."""
        total = int(self.open_tokens.sum())
        if total < 8 * GROUPS:
            return 0.0, 0.0, 0.0, 0.0
        middle = np.cumsum(self.open_tokens) - 0.5 * self.open_tokens
        group = np.minimum((middle * GROUPS / total).astype(np.int64), GROUPS - 1)
        counts = np.bincount(group, self.open_tokens, GROUPS)
        if not counts.all():
            return 0.0, 0.0, 0.0, 0.0
        sums = np.bincount(group, self.size, GROUPS)
        means = sums / counts
        centre = float(sums.sum()) / total
        between = float(np.sum(counts * (means - centre) ** 2))
        within = max(self.square - float(np.sum(sums**2 / counts)), 0.0) / total
        tokens = np.maximum(np.bincount(group, self.tokens, GROUPS), 1)
        abs_diff = np.bincount(group, self.abs_diff, GROUPS) / tokens
        level = float(np.ptp(means)) == 0.0
        # Of ranks: a rise is one whether it is steep first or last.
        ranks = np.argsort(np.argsort(means, kind="stable"), kind="stable")
        along = 0.0 if level else float(np.corrcoef(np.arange(GROUPS), ranks)[0, 1])
        gain = between / max(within, LEAST_VARIANCE)
        return along, gain, float(abs_diff[0]), float(abs_diff[-1])
