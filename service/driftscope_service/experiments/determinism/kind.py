"""The determinism probe: along which axes does the engine give other bits?"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_service.experiments.determinism.html import axes_state, render
from driftscope_service.experiments.determinism.job import DeterminismProbeRequest, probe_request
from driftscope_service.experiments.determinism.metrics import METRICS, families
from driftscope_service.experiments.determinism.page import axes_data, page_data
from driftscope_service.experiments.determinism.store import DeterminismRepository
from driftscope_service.experiments.kind import (
    Answer,
    CommandLine,
    KeptVerdicts,
    Kind,
    ReportPage,
    Summary,
)
from driftscope_service.store.tables import determinism_verdicts


def summarise(report: DeterminismReport) -> dict[str, Any]:
    """A verdict per axis."""
    return {"axes": [_axis(axis) for axis in report.axes]}


def _axis(axis: AxisReport) -> dict[str, Any]:
    tokens, equal = axis.tokens, axis.bitwise_equal_logprobs
    mismatched = None if tokens is None or equal is None else round(tokens * (1.0 - equal))
    names = ("engine", "axis", "dtype", "kernels", "verdict", "unique_outputs", "tokens")
    return {name: getattr(axis, name) for name in names} | {"mismatched_tokens": mismatched}


def sentence(summary: Summary) -> str:
    return axes_state([AxisReport.read(axis) for axis in summary["axes"]]).sentence


def answer(summary: Summary) -> Answer:
    state = axes_state([AxisReport.read(axis) for axis in summary["axes"]])
    return Answer(state.tone, state.word)


def put_verdicts(
    summary: Summary, model: str | None, report_id: str, connection: Connection
) -> None:
    assert model is not None
    DeterminismRepository(connection).put(model, summary["axes"], report_id)


KIND: Final = Kind(
    name="determinism",
    label="Determinism probe",
    package=__package__,
    docs="determinism-probe.md",
    operation="start_determinism_probe",
    description="Queue a determinism probe: along which axes (batch size, prefix cache, …) the "
    "engine gives other bits, from which value on.",
    request=DeterminismProbeRequest,
    prepare=probe_request,
    quotas=("max_response_tokens", "max_threads"),
    runner="driftscope_probes.determinism.run",
    smaller="ask for fewer axes, smaller batch sizes or a smaller model.",
    report_holds="a verdict per axis with its onset",
    read=DeterminismReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    page=ReportPage(
        "experiments/determinism/templates/report",
        page_data,
        {"axes": lambda report: axes_data(report.axes)},
    ),
    put_verdicts=put_verdicts,
    kept_verdicts=KeptVerdicts(
        determinism_verdicts, "last verdicts on axes, which /kernels and /metrics show"
    ),
    command_line=CommandLine(
        ("driftscope", "probe", "determinism"),
        service_only={"engine_endpoint": "--server-url and --server-model"},
    ),
    metrics=METRICS,
    families=families,
    recordings=("determinism",),
)
