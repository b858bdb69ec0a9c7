"""A paired report as one HTML page that opens offline, and the folder that the command leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from driftscope_probes.numbers import NUMBERS
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.grid import HEAT_HIGH, HEAT_LOW, PairedGrid, paired_grid
from driftscope_service.experiments.paired.reproduce import reproduction
from driftscope_service.numbers.metric_words import SUMMARY, grouped, shown
from driftscope_service.numbers.number_format import UNDEFINED, interval, number, seconds, share
from driftscope_service.pages.report_template import page_environment, resource, setting_table

TEMPLATE = "experiments/paired/templates/report.html.jinja"
ECHARTS = ("pages", "static", "vendor", "echarts", "echarts.min.js")
PLOTS = ("experiments", "paired", "templates", "plots")
#: In this order: each file uses the names of those before it.
SCRIPTS = (
    "number.js",
    "scale.js",
    "frame.js",
    "histogram.js",
    "by_probability.js",
    "along_response.js",
    "by_length.js",
    "download.js",
    "page.js",
)
#: Series colours that the style sheet defines.
COLOURS = 10
WORST_LAYERS = 8


def render(report: PairedReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    grid = paired_grid(report.grid)
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            grid=grid,
            series=_series(grid),
            summary=SUMMARY,
            heat_limits=(HEAT_LOW, HEAT_HIGH),
            worst_layers=_worst_layers(report.headroom),
            rollout_settings=setting_table([cell.rollout for cell in report.grid]),
            trainer_settings=setting_table([cell.trainer for cell in report.grid]),
            reproduction=reproduction(report.request),
            data=_embedded(report.to_dict()),
            cells=_embedded(_plot_cells(grid)),
            style=Markup(resource("pages", "templates", "report.css")),
            echarts=Markup(resource(*ECHARTS)),
            script=Markup("\n".join(resource(*PLOTS, name) for name in SCRIPTS)),
        )
    )


@cache
def _environment() -> Environment:
    environment = page_environment()
    environment.filters |= {
        "number": _or_undefined(number),
        "share": _or_undefined(share),
        "seconds": seconds,
        "grouped": grouped,
        "shown": shown,
        "formula": _formula,
    }
    environment.globals |= {"interval": interval, "metric": NUMBERS}
    return environment


def _or_undefined(write: Any) -> Any:
    return lambda value: UNDEFINED if value is None else write(value)


def _formula(text: str) -> Markup:
    """Keeps |Δ| on one line; everything else is escaped."""
    return escape(text).replace("|Δ|", Markup('<span class="nowrap">|Δ|</span>'))


def _series(grid: PairedGrid) -> dict[str, int]:
    """Colour number of each cell, from 1: the cells shown at first get the most distinct ones."""
    selected = grid.selected
    ordered = selected + [cell for cell in grid.cells if cell not in selected]
    return {cell.key: index % COLOURS + 1 for index, cell in enumerate(ordered)}


def _plot_cells(grid: PairedGrid) -> list[dict[str, Any]]:
    """What the script must know of a cell beyond the report; same order as the report's grid."""
    series = _series(grid)
    return [
        {"key": cell.key, "label": cell.label, "series": series[cell.key]} for cell in grid.cells
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


def _embedded(value: object) -> Markup:
    """JSON inside a script element: no `<` can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


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
