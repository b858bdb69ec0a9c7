"""The floor: how far does rounding alone move the log-probabilities of a model?"""

from __future__ import annotations

from typing import Any, Final

from driftscope_probes.floor.report import FloorReport
from driftscope_service.experiments.floor.job import NAME, FloorProbeRequest, probe_request
from driftscope_service.experiments.floor.metrics import METRICS, families
from driftscope_service.experiments.floor.page import page_data, pairs_data, render
from driftscope_service.experiments.kind import CommandLine, Kind, ReportPage, Summary


def summarise(report: FloorReport) -> dict[str, Any]:
    """The sentence, and sigma of every pair."""
    names = ("rollout_dtype", "trainer_dtype", "sigma", "basis")
    return {
        "sentence": report.sentence,
        "pairs": [{name: getattr(pair, name) for name in names} for pair in report.pairs],
    }


def sentence(summary: Summary) -> str:
    return str(summary["sentence"])


KIND: Final = Kind(
    name=NAME,
    label="Floor",
    package=__package__,
    docs="floor.md",
    operation="start_floor_probe",
    description="Queue a floor: how far rounding alone moves a model's log-probabilities, for "
    "every pair of dtypes, on the service's machine. Later verdicts are read against it.",
    request=FloorProbeRequest,
    prepare=probe_request,
    quotas=("max_response_tokens", "max_threads"),
    runner="driftscope_probes.floor.run",
    smaller="ask for fewer prompts or tokens, a smaller batch_size or a smaller model.",
    report_holds="sigma of every pair of dtypes by three estimates",
    read=FloorReport.read,
    summarise=summarise,
    sentence=sentence,
    render=render,
    page=ReportPage(
        "experiments/floor/templates/report",
        page_data,
        {"pairs": lambda report: pairs_data(report.pairs)},
    ),
    stays="The floors that it measured stay in use: they are files in the folder floors.",
    command_line=CommandLine(("driftscope", "floor")),
    metrics=METRICS,
    families=families,
    recordings=("floor",),
)
