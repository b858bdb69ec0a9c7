"""The page of an explanation in the site, and its tables as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.explain.report import ExplainReport
from driftscope_service.experiments.explain.html import content
from driftscope_service.experiments.explain.reading import AnyReport
from driftscope_service.experiments.explain.words import layers_text
from driftscope_service.pages.plot_data import Cell, PlotData

OP_COLUMNS: Final = (
    *("op", "sites", "layers", "reason", "equal_fraction", "max_ulp", "elements"),
    *("reverse_equal_fraction", "engine_way", "trainer_way", "engine_error", "trainer_error"),
    *("closer_to_float64", "beyond_tolerance"),
    *("abs_diff_mean_before_swap", "abs_diff_mean_after_swap"),
)
GROWTH_COLUMNS: Final = (*("layer", "relative_difference", "amplification", "abs_diff_mean_after"),)
COMPARED_COLUMNS: Final = (
    *("layer", "site", "op", "equal_fraction", "max_ulp", "reverse_equal_fraction"),
    *("own_inputs_equal_fraction", "beyond_tolerance", "inputs", "tokens_with_equal_inputs"),
)


def page_data(report: AnyReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def ops_data(report: AnyReport) -> PlotData:
    """A row per op that differs on equal inputs."""
    ops = report.ops if isinstance(report, ExplainReport) else []
    rows: list[list[Cell]] = [
        [
            *(op.op, ", ".join(op.sites), layers_text(op.layers), op.reason),
            *(op.equal_fraction, op.max_ulp, op.elements, op.reverse_equal_fraction),
            *(op.engine.variant, op.trainer.variant),
            *((None, None) if op.errors is None else (op.errors.engine, op.errors.trainer)),
            *(op.closer_to_float64, op.beyond_tolerance),
            *(
                (None, None)
                if op.swap is None
                else (op.swap.abs_diff_mean_before, op.swap.abs_diff_mean_after)
            ),
        ]
        for op in ops
    ]
    return PlotData(OP_COLUMNS, rows, {"empty": "No op differs on equal inputs."})


def growth_data(report: AnyReport) -> PlotData:
    """A row per layer; null is behind the last one."""
    growth = report.growth if isinstance(report, ExplainReport) else []
    rows: list[list[Cell]] = [[getattr(one, name) for name in GROWTH_COLUMNS] for one in growth]
    return PlotData(GROWTH_COLUMNS, rows, {"empty": "The growth was not measured."})


def compared_data(report: AnyReport) -> PlotData:
    """A row per op and layer."""
    compared = report.compared if isinstance(report, ExplainReport) else []
    rows: list[list[Cell]] = [[getattr(one, name) for name in COMPARED_COLUMNS] for one in compared]
    return PlotData(COMPARED_COLUMNS, rows, {"empty": "No op was compared."})
