"""The axes of an engine: those of one report, and the last verdict on every one as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_service.experiments.determinism.html import ORDER
from driftscope_service.experiments.determinism.store import AxisVerdict
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.words import RunState, Tone

#: So many axes are named; the rest is counted.
NAMED: Final = 3
TONES: Final[Mapping[str, Tone]] = {"differs": "bad", "equal": "good", "not_run": "none"}
COLUMNS: Final = (
    *("axis", "engine", "dtype", "kernels", "verdict", "reason"),
    *("bitwise_equal_tokens", "bitwise_equal_logprobs", "unique_outputs", "outputs", "tokens"),
    *("max_abs_diff", "max_ulps"),
)


def axis_label(name: str) -> str:
    return name.replace("_", " ")


def axes_state(axes: Sequence[AxisReport]) -> RunState:
    """Of a whole report or of its summary, which has no onsets."""
    ran = [axis for axis in axes if axis.verdict != "not_run"]
    left_out = len(axes) - len(ran)
    rest = f"; {left_out} could not be run" if left_out else ""
    if not ran:
        return RunState("none", "not run", f"None of the {len(axes)} axes could be run.")
    differing = [axis for axis in ran if axis.verdict == "differs"]
    if not differing:
        sentence = f"The same bits on every one of the {len(ran)} axes that were run{rest}."
        return RunState("good", "equal", sentence)
    names = list(dict.fromkeys(_differing(axis) for axis in differing))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    sentence = (
        f"{len(differing)} of {len(ran)} axes differ: {', '.join(names[:NAMED])}{more}{rest}."
    )
    # What promises the same bits and does not give them is a fault; stock kernels promise nothing.
    promised = any(axis.kernels == "invariant" for axis in differing)
    return RunState("bad" if promised else "watch", "differs", sentence)


def sorted_axes(axes: Sequence[AxisReport]) -> list[AxisReport]:
    """What differs first."""
    return sorted(axes, key=lambda axis: ORDER.index(axis.verdict))


def page_data(report: DeterminismReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return {
        "state": axes_state(report.axes),
        "axes": sorted_axes(report.axes),
        "tones": TONES,
        "axis_label": axis_label,
    }


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


def _differing(axis: AxisReport) -> str:
    label = f"{axis_label(axis.axis)} ({axis.dtype}, {axis.kernels})"
    onset = axis.onset
    if onset is None:
        return label
    setting = "" if onset.setting == axis.axis else f"{axis_label(onset.setting)} "
    return f"{label} from {setting}{onset.differs_from}"


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
    found = []
    for model in dict.fromkeys(one.model for one in verdicts):
        columns: set[MatrixColumn] = set()
        rows: dict[str, dict[MatrixColumn, AxisVerdict]] = {}
        for one in verdicts:
            if one.model == model:
                column = (one.engine, one.dtype, one.kernels)
                columns.add(column)
                rows.setdefault(one.axis, {})[column] = one
        found.append(AxisMatrix(model, sorted(columns), dict(sorted(rows.items()))))
    return found


def axis_verdicts_data(verdicts: Sequence[AxisVerdict]) -> PlotData:
    rows = [[getattr(one, name) for name in _MATRIX_COLUMNS] for one in verdicts]
    return PlotData(_MATRIX_COLUMNS, rows, {"empty": "No engine has been probed for determinism."})
