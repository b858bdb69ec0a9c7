"""The axes of an engine: those of one report, and the last verdict on every one as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_service.experiments.determinism.html import content, sorted_axes
from driftscope_service.experiments.determinism.store import AxisVerdict
from driftscope_service.pages.plot_data import PlotData

COLUMNS: Final = (
    *("axis", "engine", "dtype", "kernels", "verdict", "reason"),
    *("bitwise_equal_tokens", "bitwise_equal_logprobs", "unique_outputs", "outputs", "tokens"),
    *("max_abs_diff", "max_ulps"),
)


def page_data(report: DeterminismReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def axes_data(axes: Sequence[AxisReport]) -> PlotData:
    rows = [
        [*(getattr(axis, name) for name in COLUMNS), *_onset(axis), axis.replay]
        for axis in sorted_axes(axes)
    ]
    columns = (*COLUMNS, "onset_setting", "equal_up_to", "differs_from", "replay")
    return PlotData(columns, rows, {"empty": "The report has no axis."})


def _onset(axis: AxisReport) -> list[str | None]:
    onset = axis.onset
    if onset is None:
        return [None, None, None]
    return [onset.setting, _text(onset.equal_up_to), _text(onset.differs_from)]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


MatrixColumn = tuple[str, str, str]  # engine, dtype, kernels
_MATRIX_COLUMNS: Final = (
    *("model", "engine", "axis", "dtype", "kernels", "verdict", "unique_outputs"),
    *("tokens", "mismatched_tokens", "report_id"),
)


@dataclass(frozen=True, slots=True)
class AxisMatrix:
    model: str
    columns: list[MatrixColumn]
    rows: Mapping[str, Mapping[MatrixColumn, AxisVerdict]]  # by axis


def axis_matrices(verdicts: Sequence[AxisVerdict]) -> list[AxisMatrix]:
    matrices = []
    for model in dict.fromkeys(verdict.model for verdict in verdicts):
        columns: set[MatrixColumn] = set()
        rows: dict[str, dict[MatrixColumn, AxisVerdict]] = {}
        for verdict in verdicts:
            if verdict.model == model:
                column = (verdict.engine, verdict.dtype, verdict.kernels)
                columns.add(column)
                rows.setdefault(verdict.axis, {})[column] = verdict
        matrices.append(AxisMatrix(model, sorted(columns), dict(sorted(rows.items()))))
    return matrices


def axis_verdicts_data(verdicts: Sequence[AxisVerdict]) -> PlotData:
    rows = [[getattr(one, name) for name in _MATRIX_COLUMNS] for one in verdicts]
    return PlotData(_MATRIX_COLUMNS, rows, {"empty": "No engine has been probed for determinism."})
