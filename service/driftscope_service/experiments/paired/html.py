"""What the page of a paired report shows, the page as one file that opens offline, and the folder
that the command leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from driftscope_probes.numbers import NUMBERS
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.diagnoses import known, page_diagnoses
from driftscope_service.experiments.paired.grid import PairedGrid, paired_grid
from driftscope_service.experiments.paired.reproduce import reproduction
from driftscope_service.experiments.paired.shades import DEFAULT, SHADED, grid_state, grid_view
from driftscope_service.numbers.metric_words import SUMMARY
from driftscope_service.pages.report_template import self_contained, setting_table

TEMPLATE = "experiments/paired/templates/report.html.jinja"
#: Series colours that the style sheet defines.
COLOURS = 10
WORST_LAYERS = 8


def render(report: PairedReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    shown = content(report, DEFAULT)
    grid = shown["view"].grid
    return self_contained(
        TEMPLATE,
        report,
        title=f"{report.model['name']}: paired probe",
        kind="paired probe",
        script="report.js",
        views=[grid_view(grid, metric) for metric in SHADED],
        **shown,
    )


def content(report: PairedReport, metric: str) -> dict[str, Any]:
    """`metric`: of SHADED, shades the grid."""
    grid = paired_grid(report.grid)
    view = grid_view(grid, metric)
    return {
        "view": view,
        "state": grid_state(view, report.reading.sentence),
        "diagnoses": page_diagnoses(grid),
        "known": known(report),
        "metrics": [NUMBERS[name] for name in SHADED],
        "summary": (*SUMMARY, NUMBERS["confident_disagreement_share"]),
        "cells": _plot_cells(grid),
        "worst_layers": _worst_layers(report.headroom),
        "rollout_settings": setting_table([cell.rollout for cell in report.grid]),
        "trainer_settings": setting_table([cell.trainer for cell in report.grid]),
        "reproduction": reproduction(report.request),
    }


def _plot_cells(grid: PairedGrid) -> list[dict[str, Any]]:
    """What the script must know of a cell beyond the report; same order as the report's grid."""
    selected = grid.selected
    # The cells shown at first get the most distinct colours.
    ordered = selected + [cell for cell in grid.cells if cell not in selected]
    return [
        {
            **{"key": cell.key, "label": cell.label, "selected": cell in selected},
            "series": ordered.index(cell) % COLOURS + 1,
        }
        for cell in grid.cells
    ]


def _worst_layers(headroom: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if headroom is None:
        return []
    layers: Sequence[Mapping[str, Any]] = headroom["layers"]
    return sorted(layers, key=_largest, reverse=True)[:WORST_LAYERS]


def _largest(layer: Mapping[str, Any]) -> float:
    """Of what FP16 would have to hold; no value means that it was not finite."""
    values = (layer["activation_max"], layer["gradient_max"], layer["scaled_gradient_max"])
    return max(float("inf") if value is None else value for value in values)


def without_profiles(report: PairedReport) -> dict[str, Any]:
    """The JSON of the report, its cells without `profiles`."""
    return report.model_dump(
        mode="json", exclude_unset=True, exclude={"grid": {"__all__": {"profiles"}}}
    )


REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
KEPT_FOLDERS = ("pairs", "logs")


def write_report(report: PairedReport, folder: Path) -> None:
    """Write both forms beside the files that the probe left in `folder`."""
    text = json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False, indent=1)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / REPORT_HTML).write_text(render(report), encoding="utf-8")
    _keep_logs(folder)
    for leftover in ("request.json", "result.json"):
        (folder / leftover).unlink(missing_ok=True)


def _keep_logs(folder: Path) -> None:
    """Of each step's work folder only its log is worth keeping; pairs/ holds what it computed."""
    logs = folder / "logs"
    logs.mkdir()
    for log in sorted(folder.rglob("log.txt")):
        step = "-".join(log.parent.relative_to(folder).parts) or "probe"
        log.rename(logs / f"{step}.txt")
    for step_folder in folder.iterdir():
        if step_folder.is_dir() and step_folder.name not in KEPT_FOLDERS:
            shutil.rmtree(step_folder)
