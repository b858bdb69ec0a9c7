"""The diagnosis by controls: which cause makes engine and trainer differ?"""

from __future__ import annotations

from typing import Any, Final

from driftscope_probes.diagnose.report import VERDICTS, DiagnoseReport
from driftscope_service.experiments.diagnose.job import (
    NAME,
    DiagnoseProbeRequest,
    probe_request,
    step_of_request,
)
from driftscope_service.experiments.diagnose.metrics import METRICS, families
from driftscope_service.experiments.diagnose.page import TONES, page_data, render, steps_data
from driftscope_service.experiments.kind import Answer, CommandLine, Kind, ReportPage, Summary


def summarise(report: DiagnoseReport) -> dict[str, Any]:
    """The sentence, the causes, and the step that it was asked of."""
    source = report.source
    of_step = None if source is None or source.run is None else source.to_dict()
    return {
        "sentence": report.sentence,
        "verdict": report.verdict,
        "causes": [{"name": one.name, "confidence": one.confidence} for one in report.causes],
        "controls": len(report.steps),
        "side": report.side,
        "remedy": report.remedy,
        "of_step": of_step,
    }


def sentence(summary: Summary) -> str:
    return str(summary["sentence"])


def answer(summary: Summary) -> Answer:
    explained = summary["verdict"] == "explained"
    return Answer(
        TONES[summary["verdict"]],
        VERDICTS[summary["verdict"]],
        cause=summary["causes"][0]["name"] if explained else None,
        side=summary["side"],
        remedy=summary["remedy"] if explained else None,
    )


KIND: Final = Kind(
    name=NAME,
    label="Diagnosis by controls",
    package=__package__,
    docs="diagnose.md",
    operation="start_diagnose_probe",
    description="Queue a diagnosis by controls: a live engine and trainer are run with one thing "
    "changed at a time, the control that tells most per second first, until one cause is left.",
    request=DiagnoseProbeRequest,
    prepare=probe_request,
    brings=step_of_request,
    quotas=("max_response_tokens", "max_threads", "max_kv_cache_gib"),
    runner="driftscope_probes.diagnose.run",
    smaller="ask for fewer or shorter prompts or a smaller model.",
    report_holds="controls in the order in which they were run, each with its reason, and causes",
    read=DiagnoseReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    page=ReportPage(
        "experiments/diagnose/templates/report",
        page_data,
        {"steps": lambda report: steps_data(report.steps)},
    ),
    command_line=CommandLine(
        ("driftscope", "diagnose"),
        {
            "engine.kind": "--engine",
            "engine.compile": "--compile/--enforce-eager",
            "older_models": "--older-model",
        },
        shared={
            "trainer.threads": "engine.threads",
            "trainer.kernels": "engine.kernels",
            "trainer.seed": "sampling.seed",
        },
        service_only={
            "engine_endpoint": "--server-url and --server-model",
            "run": "the FILE of the step",
            "step": "the FILE of the step",
        },
    ),
    metrics=METRICS,
    families=families,
    schedulable=False,
    recordings=("diagnose",),
)
