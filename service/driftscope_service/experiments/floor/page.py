"""What the page of a floor shows, the page as one file without scripts, and its table as data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from driftscope_probes.floor.report import BASES, FloorReport, PairFloor, Sigma
from driftscope_probes.floor.request import FloorRequest
from driftscope_service.pages.plot_data import Cell, PlotData
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import RunState

TEMPLATE: Final = "experiments/floor/templates/report.html.jinja"
ESTIMATES: Final = ("same_side", "reference", "perturbation")
COLUMNS: Final = ("rollout_dtype", "trainer_dtype", "sigma", "low", "high", "basis", "reason")


def render(report: FloorReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"Floor of {report.model['name']}"
    return self_contained(TEMPLATE, report, title=title, kind="floor", **content(report))


def content(report: FloorReport) -> dict[str, Any]:
    return {
        "state": floor_state(report.pairs, report.sentence),
        "bases": BASES,
        "command": command(report.request),
    }


def page_data(report: FloorReport, _query: Mapping[str, str]) -> dict[str, Any]:
    return content(report)


def floor_state(pairs: Sequence[PairFloor], sentence: str) -> RunState:
    """Watched where a pair's own measurement was more than rounding explains."""
    odd = any(pair.basis == "perturbation" and pair.same_side.sigma > 0 for pair in pairs)
    if odd:
        return RunState("watch", "not only rounding", sentence)
    return RunState("good", "measured", sentence)


def pairs_data(pairs: Sequence[PairFloor]) -> PlotData:
    rows: list[list[Cell]] = []
    for pair in pairs:
        estimates: list[Sigma] = [getattr(pair, name) for name in ESTIMATES]
        rows.append(
            [
                *(getattr(pair, name) for name in COLUMNS),
                *(estimate.sigma for estimate in estimates),
            ]
        )
    return PlotData((*COLUMNS, *ESTIMATES), rows, {"empty": "The report has no pair."})


def command(request: FloorRequest) -> str:
    """The command line that gives the report again."""
    words = ["driftscope", "floor", "--model", request.model, "--dtypes", ",".join(request.dtypes)]
    words += ["--prompts", str(request.prompts), "--max-tokens", str(request.max_tokens)]
    words += ["--batch-size", str(request.batch_size), "--seed", str(request.seed)]
    if request.fp16_prompts is not None:
        words += ["--fp16-prompts", str(request.fp16_prompts)]
    if request.threads is not None:
        words += ["--threads", str(request.threads)]
    return shlex.join(words)
