"""The page of a paired report in the site: the grid under the number asked for, and as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.grid import PairedGrid
from driftscope_service.experiments.paired.html import content
from driftscope_service.experiments.paired.shades import DEFAULT, SHADED
from driftscope_service.http.errors import InvalidField
from driftscope_service.pages.plot_data import Cell, PlotData


def page_data(report: PairedReport, query: Mapping[str, str]) -> dict[str, Any]:
    metric = query.get("metric", DEFAULT)
    if metric not in SHADED:
        raise InvalidField(
            "query/metric",
            f"{metric[:64]!r} does not shade a grid",
            remedy=f"use one of {', '.join(SHADED)}.",
        )
    return content(report, metric)


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
