"""What the page of a determinism report shows, and the page as one file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from driftscope_probes.determinism.batch import ROWS_TOGETHER
from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_probes.verdicts import NOT_RUN, RANKS
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import RunState, Tone

TEMPLATE = "experiments/determinism/templates/report.html.jinja"
TONES: Final[Mapping[str, Tone]] = {
    "differs": "bad",
    "not_repeatable": "watch",
    "equal": "good",
    "not_run": "none",
}
ORDER: Final = (*RANKS["engine"], NOT_RUN["engine"])  # what a reader must see first
#: So many axes are named; the rest is counted.
NAMED: Final = 3


def render(report: DeterminismReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"Determinism of {report.model['name']}"
    return self_contained(
        TEMPLATE, report, title=title, kind="determinism probe", **content(report)
    )


def content(report: DeterminismReport) -> dict[str, Any]:
    return {
        "state": axes_state(report.axes),
        "axes": sorted_axes(report.axes),
        "tones": TONES,
        "axis_label": axis_label,
    }


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
    unsteady = len([axis for axis in ran if axis.verdict == "not_repeatable"])
    if unsteady and not differing:
        sentence = (
            f"On {unsteady} of {len(ran)} axes the same request gave other bits again: the engine "
            f"does not repeat itself, and no axis is to blame{rest}."
        )
        return RunState("watch", "not repeatable", sentence)
    if unsteady:
        rest = (
            f"; on {unsteady} more the same request gave other bits again, so that the axis "
            f"shows nothing{rest}"
        )
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


def _differing(axis: AxisReport) -> str:
    label = f"{axis_label(axis.axis)} ({axis.dtype}, {axis.kernels})"
    onset = axis.onset
    if onset is None:
        return label
    if onset.setting == ROWS_TOGETHER:
        return f"{label} from {onset.differs_from} rows on"
    setting = "" if onset.setting == axis.axis else f"{axis_label(onset.setting)} "
    return f"{label} from {setting}{onset.differs_from}"
