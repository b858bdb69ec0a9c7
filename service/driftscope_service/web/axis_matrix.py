"""The last verdict on every axis of every engine: a matrix per model.

In: AxisVerdicts. Out: AxisMatrix by model, PlotData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_service.store.determinism_repository import AxisVerdict
from driftscope_service.web.plot_data import PlotData

Column = tuple[str, str, str]  # engine, dtype, kernels
_COLUMNS: Final = (
    *("model", "engine", "axis", "dtype", "kernels", "verdict", "unique_outputs"),
    *("tokens", "mismatched_tokens", "report_id"),
)


@dataclass(frozen=True, slots=True)
class AxisMatrix:
    model: str
    columns: list[Column]
    rows: Mapping[str, Mapping[Column, AxisVerdict]]  # by axis


def axis_matrices(verdicts: Sequence[AxisVerdict]) -> list[AxisMatrix]:
    found = []
    for model in dict.fromkeys(one.model for one in verdicts):
        columns: set[Column] = set()
        rows: dict[str, dict[Column, AxisVerdict]] = {}
        for one in verdicts:
            if one.model == model:
                column = (one.engine, one.dtype, one.kernels)
                columns.add(column)
                rows.setdefault(one.axis, {})[column] = one
        found.append(AxisMatrix(model, sorted(columns), dict(sorted(rows.items()))))
    return found


def axis_verdicts_data(verdicts: Sequence[AxisVerdict]) -> PlotData:
    rows = [[getattr(one, name) for name in _COLUMNS] for one in verdicts]
    return PlotData(_COLUMNS, rows, {"empty": "No engine has been probed for determinism."})
