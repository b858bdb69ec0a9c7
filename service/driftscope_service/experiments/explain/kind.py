"""The explanation: which operation makes the gap between engine and trainer, and why?"""

from __future__ import annotations

from typing import Final

from driftscope_probes.explain.report import VERDICTS
from driftscope_service.experiments.explain.html import TONES, render
from driftscope_service.experiments.explain.job import NAME, ExplainProbeRequest, probe_request
from driftscope_service.experiments.explain.metrics import METRICS, families
from driftscope_service.experiments.explain.page import (
    compared_data,
    growth_data,
    ops_data,
    page_data,
)
from driftscope_service.experiments.explain.reading import read_report, summarise
from driftscope_service.experiments.kind import (
    SCRIPT_POLICY,
    Answer,
    CommandLine,
    Kind,
    ReportPage,
    Summary,
)


def sentence(summary: Summary) -> str:
    return str(summary["sentence"])


def answer(summary: Summary) -> Answer:
    verdict = summary["verdict"]
    return Answer(TONES[verdict], VERDICTS[verdict], side=summary["side"], remedy=summary["remedy"])


KIND: Final = Kind(
    name=NAME,
    label="Explanation",
    package=__package__,
    docs="explain.md",
    operation="start_explain_probe",
    description="Queue an explanation: every op of engine and trainer is compared on equal inputs, "
    "what differs is named with its reason, and the ops named are replaced together to see whether "
    "the gap goes.",
    request=ExplainProbeRequest,
    prepare=probe_request,
    quotas=("max_response_tokens", "max_threads", "max_kv_cache_gib"),
    runner="driftscope_probes.explain.run",
    smaller="ask for fewer or shorter prompts or a smaller model, or leave the backward pass out.",
    report_holds="ops that differ on equal inputs with their reasons, growth by layer, the gap "
    "with those ops replaced",
    read=read_report,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    policy=SCRIPT_POLICY,
    page=ReportPage(
        "experiments/explain/templates/report",
        page_data,
        {
            "ops": ops_data,
            "compared": compared_data,
            "growth": growth_data,
        },
    ),
    command_line=CommandLine(
        ("driftscope", "explain"),
        {"engine.kind": "--engine", "engine.compile": "--compile/--enforce-eager"},
        shared={"trainer.threads": "engine.threads", "trainer.kernels": "engine.kernels"},
    ),
    metrics=METRICS,
    families=families,
    schedulable=False,
    recordings=("explain",),
)
