"""What the page of a matrix shows, the page as one file without scripts, and its table as data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.matrix.report import MatrixReport, PlaceReport
from driftscope_probes.matrix.surroundings import RELATIONS
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import RunState, Tone

TEMPLATE: Final = "experiments/matrix/templates/report.html.jinja"
TONES: Final[Mapping[str, Tone]] = {"equal": "good", "differs": "watch", "not_repeatable": "watch"}
COLUMNS: Final = (
    *("first", "second", "tokens", "bitwise_equal_fraction", "abs_diff_mean", "abs_diff_max"),
    *("kl_k3", "not_finite", "differing_tokens"),
)


def render(report: MatrixReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"Matrix of {report.model['name']}"
    return self_contained(TEMPLATE, report, title=title, kind="matrix probe", **content(report))


def content(report: MatrixReport) -> dict[str, Any]:
    return {
        "state": matrix_state(report.verdict, len(report.failed), report.sentence),
        "tones": TONES,
        "relations": RELATIONS,
        "command": command(report),
    }


def page_data(report: MatrixReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def matrix_state(verdict: str, failed: int, sentence: str) -> RunState:
    """Places that agree are good news only where all of them could be asked."""
    if verdict == "equal" and failed:
        return RunState("watch", "not all ran", sentence)
    return RunState(TONES.get(verdict, "none"), verdict.replace("_", " "), sentence)


def pairs_data(report: MatrixReport) -> PlotData:
    """One row per subject and pair of classes; a subject without a difference has one, too."""
    rows = []
    for subject in report.subjects:
        own = [subject.side, subject.way, subject.dtype, subject.verdict, len(subject.classes)]
        rows += [[*own, *(getattr(pair, name) for name in COLUMNS)] for pair in subject.pairs]
        if not subject.pairs:
            rows.append([*own, *(None for _ in COLUMNS)])
    columns = ("side", "way", "dtype", "verdict", "classes", *COLUMNS)
    return PlotData(columns, rows, {"empty": "The report has no subject."})


def command(report: MatrixReport) -> str:
    """The command line that gives the report again; interpreters of places are the operator's."""
    asked = report.request
    words = ["driftscope", "probe", "matrix", "--model", asked.model]
    for place in report.places:
        if place.kind == "local":
            words += ["--place", place_word(place)]
    variables = [
        f"{place.place}:{name}={value}"
        for place in report.places
        for name, value in place.variables.items()
    ]
    for variable in dict.fromkeys(variables):
        words += ["--variable", variable]
    words += ["--engine-dtypes", ",".join(asked.engine_dtypes)]
    words += ["--trainer-dtypes", ",".join(asked.trainer_dtypes)]
    for name in ("ray", "engine", "kernels", "prompts", "max_tokens", "seed", "threads"):
        if getattr(asked, name) is not None:
            words += ["--" + name.replace("_", "-"), str(getattr(asked, name))]
    return shlex.join(words)


def place_word(place: PlaceReport) -> str:
    """A path of the operator's is not for the readers of a report."""
    return f"{place.place}=PYTHON" if place.own_python else place.place
