"""The grid of a paired report under one number: shaded cells, and its state in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.mismatch.thresholds import CrossedThreshold, crossed_thresholds
from driftscope_probes.numbers import NUMBERS, NumberRow
from driftscope_service.experiments.paired.grid import GridCell, PairedGrid
from driftscope_service.numbers.metric_words import Shown, shown
from driftscope_service.pages.words import RunState

#: What may shade the grid.
SHADED: Final = (
    *("abs_diff_mean", "abs_diff_p99", "abs_diff_max", "kl_k3", "prob_pearson"),
    *("token_mult_prob_error", "ess_ratio_token", "ratio_share_outside_0p5_2"),
    *("seq_logratio_std", "bitwise_equal_fraction"),
)
DEFAULT: Final = "abs_diff_mean"
#: Shades run over these means of |Δ|, the same in every report: from float32 rounding with another
#: order of summation (about 1e-6) to what no rounding explains (0.1, the CI limit of slime).
HEAT_LOW, HEAT_HIGH = 1e-6, 1e-1
#: Classes heat-0 to heat-10.
SHADES: Final = 10
_MIDDLE: Final = SHADES // 2


@dataclass(frozen=True, slots=True)
class ShadedCell:
    cell: GridCell
    number: Shown
    shade: int | None  # None where the number is undefined
    crossed: tuple[CrossedThreshold, ...]


@dataclass(frozen=True, slots=True)
class GridView:
    metric: NumberRow
    grid: PairedGrid
    cells: tuple[ShadedCell, ...]
    #: The ends of the shades in the distance from the ideal; None where no cell has one.
    ends: tuple[float, float] | None

    def at(self, engine_dtype: str, trainer_dtype: str) -> ShadedCell | None:
        cell = self.grid.at(engine_dtype, trainer_dtype)
        return next((shaded for shaded in self.cells if shaded.cell is cell), None)

    @property
    def same_in_every_report(self) -> bool:
        return self.metric.name == DEFAULT

    @property
    def crossed(self) -> list[tuple[GridCell, CrossedThreshold]]:
        """By the cells that a training run would use."""
        chosen = set(map(id, self.grid.selected))
        return [
            (shaded.cell, limit)
            for shaded in self.cells
            if id(shaded.cell) in chosen
            for limit in shaded.crossed
        ]


def grid_view(grid: PairedGrid, metric: str) -> GridView:
    distances = [_distance(cell, metric) for cell in grid.cells]
    ends = _ends(metric, [distance for distance in distances if distance])
    return GridView(
        NUMBERS[metric],
        grid,
        tuple(
            ShadedCell(
                cell,
                shown(cell.comparison, NUMBERS[metric]),
                _shade(distance, ends),
                _crossed(cell),
            )
            for cell, distance in zip(grid.cells, distances, strict=True)
        ),
        ends,
    )


def grid_state(view: GridView, sentence: str) -> RunState:
    """`sentence`: the reading of the report."""
    if view.crossed:
        return RunState("bad", "beyond limits", sentence)
    return RunState("good", "within limits", sentence)


def _distance(cell: GridCell, metric: str) -> float | None:
    value = cell.comparison.get(metric)
    return None if value is None else abs(value - NUMBERS[metric].ideal)


def _ends(metric: str, positive: list[float]) -> tuple[float, float] | None:
    if metric == DEFAULT:
        return HEAT_LOW, HEAT_HIGH
    return (min(positive), max(positive)) if positive else None


def _shade(distance: float | None, ends: tuple[float, float] | None) -> int | None:
    if distance is None:
        return None
    if ends is None or distance == 0:
        return 0
    low, high = ends
    if low == high:
        return _MIDDLE
    fraction = math.log(distance / low) / math.log(high / low)
    return round(min(1.0, max(0.0, fraction)) * SHADES)


def _crossed(cell: GridCell) -> tuple[CrossedThreshold, ...]:
    trainer = parse_mode(cell.trainer_dtype).compute
    return crossed_thresholds(
        cell.comparison, rollout_dtype=cell.engine_dtype, trainer_dtype=trainer
    )
