"""What the page of a diagnosis by controls shows, the page as one file, and its steps as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from driftscope_probes.diagnose.report import ENDED, VERDICTS, DiagnoseReport, Step
from driftscope_probes.diagnosis.planner import UNEXPLAINED
from driftscope_service.pages.plot_data import Cell, PlotData
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import RunState, Tone

TEMPLATE: Final = "experiments/diagnose/templates/report.html.jinja"
TONES: Final[Mapping[str, Tone]] = {
    "at_floor": "good",
    "explained": "bad",
    "unexplained": "watch",
    "not_reproduced": "watch",
}
COLUMNS: Final = ("control", "outcome", "what", "value", "expected", "seconds", "reason")


def render(report: DiagnoseReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"Diagnosis of {report.model['name']}"
    return self_contained(TEMPLATE, report, title=title, kind="diagnose", **content(report))


def content(report: DiagnoseReport) -> dict[str, Any]:
    return {
        "state": RunState(TONES[report.verdict], VERDICTS[report.verdict], report.sentence),
        "ended": ENDED[report.ended],
        "unexplained": UNEXPLAINED,
    }


def page_data(report: DiagnoseReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def steps_data(steps: Sequence[Step]) -> PlotData:
    """A row per control in the order in which they were run, and the belief after it."""
    rows: list[list[Cell]] = [
        [
            *(getattr(step, name) for name in COLUMNS),
            step.belief[0].cause,
            step.belief[0].probability,
        ]
        for step in steps
    ]
    columns = (*COLUMNS, "first_cause", "first_probability")
    return PlotData(columns, rows, {"empty": "No control was run."})
