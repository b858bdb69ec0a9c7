"""What the page of an explanation shows, the page as one file that opens offline, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.explain.report import VERDICTS, ExplainReport, Verdict
from driftscope_service.experiments.explain.heat import heat_of
from driftscope_service.experiments.explain.words import (
    closer_sentence,
    first_words,
    growth_words,
    layers_text,
    of_layers,
    reason_label,
    reason_tone,
    way_words,
)
from driftscope_service.pages.plot_data import Cell, PlotData
from driftscope_service.pages.report_template import (
    ABSENT,
    SettingRow,
    SettingTable,
    flat,
    self_contained,
)
from driftscope_service.pages.words import RunState, Tone

TEMPLATE: Final = "experiments/explain/templates/report.html.jinja"
TONES: Final[Mapping[Verdict, Tone]] = {
    "equal": "good",
    "rounding": "watch",
    "fault": "bad",
    "unexplained": "watch",
    "not_comparable": "bad",
}
OP_COLUMNS: Final = (
    *("op", "sites", "layers", "reason", "equal_fraction", "max_ulp", "elements"),
    *("reverse_equal_fraction", "engine_way", "trainer_way", "engine_error", "trainer_error"),
    *("closer_to_float64", "beyond_tolerance"),
    *("abs_diff_mean_before_swap", "abs_diff_mean_after_swap"),
)
GROWTH_COLUMNS: Final = (*("layer", "relative_difference", "amplification", "abs_diff_mean_after"),)


def render(report: ExplainReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"{report.model['name']}: explanation"
    return self_contained(
        TEMPLATE,
        report,
        title=title,
        kind="explanation",
        script="explain.js",
        **content(report),
    )


def content(report: ExplainReport) -> dict[str, Any]:
    return {
        "state": RunState(TONES[report.verdict], VERDICTS[report.verdict], report.sentence),
        "heat": heat_of(report.compared, report.ops),
        "closer": closer_sentence(report.ops),
        "growth_sentence": growth_words(report.growth),
        "ran": _ran(report.ran),
        "failed": [check for check in report.alignment.checks if not check.equal],
        "layers_text": layers_text,
        "of_layers": of_layers,
        "reason_label": reason_label,
        "reason_tone": reason_tone,
        "first_words": first_words,
        "way_words": way_words,
    }


def page_data(report: ExplainReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def _ran(ran: Mapping[str, Mapping[str, Any]]) -> SettingTable:
    """A column a side."""
    sides = [flat(values) for values in ran.values()]
    names = dict.fromkeys(name for side in sides for name in side)
    return SettingTable(
        tuple(ran),
        tuple(SettingRow(name, tuple(side.get(name, ABSENT) for side in sides)) for name in names),
    )


def ops_data(report: ExplainReport) -> PlotData:
    """A row per op that differs on equal inputs."""
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
        for op in report.ops
    ]
    return PlotData(OP_COLUMNS, rows, {"empty": "No op differs on equal inputs."})


def growth_data(report: ExplainReport) -> PlotData:
    """A row per layer; null is behind the last one."""
    rows: list[list[Cell]] = [
        [getattr(one, name) for name in GROWTH_COLUMNS] for one in report.growth
    ]
    return PlotData(GROWTH_COLUMNS, rows, {"empty": "The growth was not measured."})
