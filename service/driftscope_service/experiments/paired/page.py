"""The grid of a paired report under one number: shaded cells, the same as data, its state in words.

In: PairedGrid and the name of a number. Out: rows for the page, PlotData, RunState.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.mismatch.thresholds import CrossedThreshold, crossed_thresholds
from driftscope_probes.numbers import NUMBERS
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.grid import (
    HEAT_HIGH,
    HEAT_LOW,
    GridCell,
    PairedGrid,
    paired_grid,
)
from driftscope_service.experiments.paired.reproduce import reproduction
from driftscope_service.http.errors import InvalidField
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import Shown, shown
from driftscope_service.pages.plot_data import Cell, PlotData
from driftscope_service.pages.words import RunState

#: What may shade the grid.
SHADED: Final = (
    *("abs_diff_mean", "abs_diff_p99", "abs_diff_max", "kl_k3", "prob_pearson"),
    *("token_mult_prob_error", "ess_ratio_token", "ratio_share_outside_0p5_2"),
    *("seq_logratio_std", "bitwise_equal_fraction"),
)
DEFAULT: Final = "abs_diff_mean"
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
    metric: str
    grid: PairedGrid
    cells: tuple[ShadedCell, ...]
    #: The ends of the shades in the distance from the ideal; None where no cell has one.
    ends: tuple[float, float] | None

    def at(self, engine_dtype: str, trainer_dtype: str) -> ShadedCell | None:
        place = self.grid.at(engine_dtype, trainer_dtype)
        return next((one for one in self.cells if one.cell is place), None)

    @property
    def same_in_every_report(self) -> bool:
        return self.metric == DEFAULT

    @property
    def crossed(self) -> list[tuple[GridCell, CrossedThreshold]]:
        """By the cells that a training run would use."""
        chosen = set(map(id, self.grid.selected))
        return [
            (one.cell, limit)
            for one in self.cells
            if id(one.cell) in chosen
            for limit in one.crossed
        ]


def grid_view(grid: PairedGrid, metric: str) -> GridView:
    distances = [_distance(cell, metric) for cell in grid.cells]
    ends = _ends(metric, [one for one in distances if one])
    return GridView(
        metric,
        grid,
        tuple(
            ShadedCell(
                cell,
                shown(cell.comparison, metric_words.metric(metric)),
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


def page_data(report: PairedReport, query: Mapping[str, str]) -> dict[str, Any]:
    metric = query.get("metric", DEFAULT)
    if metric not in SHADED:
        raise InvalidField(
            "query/metric",
            f"{metric[:64]!r} does not shade a grid",
            remedy=f"use one of {', '.join(SHADED)}.",
        )
    view = grid_view(paired_grid(report.grid), metric)
    return {
        "view": view,
        "state": grid_state(view, report.reading.sentence),
        "metric": metric_words.metric(metric),
        "metrics": [metric_words.metric(name) for name in SHADED],
        "words": metric_words,
        "default": DEFAULT,
        "reproduction": reproduction(report.request),
    }


def grid_data(grid: PairedGrid) -> PlotData:
    """A row per cell with every number that it has."""
    names = list(
        dict.fromkeys(
            name
            for cell in grid.cells
            for name, value in cell.comparison.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        )
    )
    rows: list[list[Cell]] = [
        [
            *(cell.engine_dtype, cell.trainer_dtype, cell.matched),
            *(cell.comparison.get(name) for name in names),
        ]
        for cell in grid.cells
    ]
    columns = ("engine_dtype", "trainer_dtype", "same_format", *names)
    return PlotData(columns, rows, {"empty": "The report has no cell."})


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
    place = math.log(distance / low) / math.log(high / low)
    return round(min(1.0, max(0.0, place)) * SHADES)


def _crossed(cell: GridCell) -> tuple[CrossedThreshold, ...]:
    trainer = parse_mode(cell.trainer_dtype).compute
    return crossed_thresholds(
        cell.comparison, rollout_dtype=cell.engine_dtype, trainer_dtype=trainer
    )
