"""The kernel check: do the bits of a row depend on the batch around it?"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.kernels.report import KernelsReport
from driftscope_service.experiments.kernels.html import render
from driftscope_service.experiments.kernels.job import NAME, KernelsProbeRequest, probe_request
from driftscope_service.experiments.kernels.metrics import METRICS, families
from driftscope_service.experiments.kernels.store import SUBJECT, KernelVerdictRepository
from driftscope_service.experiments.kind import Answer, CommandLine, KeptVerdicts, Kind, Summary
from driftscope_service.store.tables import kernel_verdicts


def summarise(report: KernelsReport) -> dict[str, Any]:
    """The verdicts and the planted faults."""
    names = (*SUBJECT, "verdict", "detection_rate")
    return {
        "planted": report.planted.model_dump(include={"caught", "total", "missed"}),
        "verdicts": [{name: getattr(each, name) for name in names} for each in report.verdicts],
    }


def sentence(summary: Summary) -> str:
    verdicts = [verdict["verdict"] for verdict in summary["verdicts"]]
    planted = summary["planted"]
    return (
        f"{verdicts.count('REFUTED')} of {len(verdicts)} refuted; "
        f"{planted['caught']} of {planted['total']} planted faults caught."
    )


def answer(summary: Summary) -> Answer:
    if summary["planted"]["missed"]:
        return Answer("bad", "checker blind")
    refuted = any(verdict["verdict"] == "REFUTED" for verdict in summary["verdicts"])
    return Answer("watch", "some refuted") if refuted else Answer("good", "none refuted")


def put_verdicts(
    summary: Summary, _model: str | None, report_id: str, connection: Connection
) -> None:
    KernelVerdictRepository(connection).put(summary["verdicts"], report_id)


KIND: Final = Kind(
    name=NAME,
    label="Kernel check",
    package=__package__,
    docs="kernel-checker.md",
    operation="start_kernels_probe",
    description="Queue a kernel check: a verdict for every kernel, dtype and number of threads, "
    "with the smallest counterexample where it is refuted.",
    request=KernelsProbeRequest,
    prepare=probe_request,
    quotas=("max_threads",),
    runner="driftscope_probes.kernels.run",
    smaller="ask for one target and op at a time to find the kernel that ends it.",
    report_holds="verdicts with counterexamples and proofs, planted faults",
    read=KernelsReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    put_verdicts=put_verdicts,
    kept_verdicts=KeptVerdicts(
        kernel_verdicts, "last verdicts on kernels, which /kernels and /metrics show"
    ),
    command_line=CommandLine(
        ("driftscope", "kernels", "check"),
        {
            **{"targets": "--target", "ops": "--op", "dtypes": "--dtype", "axes": "--axis"},
            "quick": "--quick/--no-quick",
        },
    ),
    metrics=METRICS,
    families=families,
    recordings=("kernels",),
)
