"""The paired probe: an engine and a trainer on the same tokens, every dtype against every mode."""

from __future__ import annotations

from typing import Any, Final

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.kind import (
    SCRIPT_POLICY,
    Answer,
    CommandLine,
    Kind,
    ReportPage,
    Summary,
)
from driftscope_service.experiments.paired.diagnoses import report_answer, report_sentence
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.paired.html import render
from driftscope_service.experiments.paired.job import NAME, PairedProbeRequest, probe_request
from driftscope_service.experiments.paired.metrics import METRICS, families
from driftscope_service.experiments.paired.page import grid_data, page_data


def summarise(report: PairedReport) -> dict[str, Any]:
    """The sentence, the comparisons, and what a list shows first."""
    names = ("engine_dtype", "trainer_dtype", "comparison")
    return {
        "sentence": report_sentence(report),
        "cells": [{name: getattr(cell, name) for name in names} for cell in report.grid],
        "answer": report_answer(report),
    }


def sentence(summary: Summary) -> str:
    return str(summary["sentence"])


def answer(summary: Summary) -> Answer | None:
    said = summary.get("answer")
    return None if said is None else Answer(**said)


KIND: Final = Kind(
    name=NAME,
    label="Paired probe",
    package=__package__,
    docs="finding-a-divergence.md",
    operation="start_paired_probe",
    description="Queue a paired probe: rollouts of the engine in every dtype, compared with a "
    "training-mode forward over the same tokens in every mode.",
    request=PairedProbeRequest,
    prepare=probe_request,
    quotas=("max_response_tokens", "max_resamples", "max_threads", "max_kv_cache_gib"),
    runner="driftscope_probes.paired.run",
    smaller="ask for fewer or shorter prompts, a smaller batch_size or a smaller model.",
    report_holds="grid of comparisons, profiles, settings",
    read=PairedReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    policy=SCRIPT_POLICY,
    page=ReportPage(
        "experiments/paired/templates/report",
        page_data,
        {"grid": lambda report: grid_data(paired_grid(report.grid))},
        parameters=("metric",),
    ),
    command_line=CommandLine(
        ("driftscope", "probe", "paired"),
        {"engine.kind": "--engine", "engine.compile": "--compile/--enforce-eager"},
        shared={
            "trainer.threads": "engine.threads",
            "trainer.kernels": "engine.kernels",
            "trainer.seed": "sampling.seed",
        },
        service_only={"engine_endpoint": "--server-url and --server-model"},
    ),
    metrics=METRICS,
    families=families,
    schedulable=False,
    recordings=("paired",),
)
