"""What a plot draws, as JSON and CSV: one table with named columns, and what is said beside it.

In: PlotData. Out: the response of `…/plots/{plot}.json` or `.csv`; the plot itself reads the JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from fastapi import Request, Response

from driftscope_probes.diagnosis.cause import Plot
from driftscope_service.pages.response import PAGE_HEADERS, compressed

Format: TypeAlias = Literal["json", "csv"]
Cell: TypeAlias = str | int | float | bool | None
#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class PlotData:
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    #: Title, units, limits, notes: in the JSON only.
    about: Mapping[str, Any] = field(default_factory=dict)


def plot_response(request: Request, data: PlotData, format_: Format, name: str) -> Response:
    """`name`: of the file that a browser saves, without its suffix."""
    headers = dict(PAGE_HEADERS)
    if format_ == "csv":
        headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
        return compressed(request, _csv(data), "text/csv; charset=utf-8", headers=headers)
    body = {**data.about, "columns": data.columns, "rows": [_finite(row) for row in data.rows]}
    text = json.dumps(body, allow_nan=False, separators=(",", ":"))
    return compressed(request, text.encode(), "application/json", headers=headers)


def _csv(data: PlotData) -> bytes:
    text = io.StringIO()
    # RFC 4180: lines end with CR LF, which the writer's default does.
    writer = csv.writer(text)
    writer.writerow(data.columns)
    writer.writerows([_spreadsheet(cell) for cell in row] for row in data.rows)
    return text.getvalue().encode()


def _finite(row: Sequence[Cell]) -> list[Cell]:
    """JSON has neither NaN nor infinity."""
    return [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]


def _spreadsheet(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return "'" + cell
    return cell


def evidence_plot(plot: Plot) -> PlotData:
    """What static/plots/evidence.js draws of a cause."""
    about = {
        "kind": plot.kind,
        "title": plot.title,
        "x_label": plot.x_label,
        "y_label": plot.y_label,
        "empty": "There is no number to draw.",
    }
    return PlotData((plot.x_label, plot.y_label), list(zip(plot.x, plot.y, strict=True)), about)
