"""A finished report into the store: file, row, summary, and the verdicts that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.nightly.report import NightlyReport, Outcome
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.determinism.store import DeterminismRepository
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.kernels.store import SUBJECT, KernelVerdictRepository
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.experiments.nightly.store import NightlyRepository
from driftscope_service.experiments.store import ReportFile, ReportFiles, ReportRepository
from driftscope_service.store.database import Database
from driftscope_service.store.tables import MODEL_NAME_LENGTH


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    """By kind. paired: sentence and comparisons. kernels: verdicts and planted faults.
    determinism: a verdict per axis. nightly: how it ended and what became of each item."""
    return _SUMMARIES[report["kind"]](report)


def _paired(stored: Mapping[str, Any]) -> dict[str, Any]:
    report, names = PairedReport.read(stored), ("engine_dtype", "trainer_dtype", "comparison")
    return {
        "sentence": report.reading.sentence,
        "cells": [{name: getattr(cell, name) for name in names} for cell in report.grid],
    }


def _kernels(stored: Mapping[str, Any]) -> dict[str, Any]:
    report = KernelsReport.read(stored)
    return {
        "planted": report.planted.model_dump(include={"caught", "total", "missed"}),
        "verdicts": [
            {name: getattr(verdict, name) for name in (*SUBJECT, "verdict", "detection_rate")}
            for verdict in report.verdicts
        ],
    }


def _determinism(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {"axes": [_axis(axis) for axis in DeterminismReport.read(stored).axes]}


def _axis(axis: AxisReport) -> dict[str, Any]:
    tokens, equal = axis.tokens, axis.bitwise_equal_logprobs
    mismatched = None if tokens is None or equal is None else round(tokens * (1.0 - equal))
    names = ("engine", "axis", "dtype", "kernels", "verdict", "unique_outputs", "tokens")
    return {name: getattr(axis, name) for name in names} | {"mismatched_tokens": mismatched}


def _nightly(stored: Mapping[str, Any]) -> dict[str, Any]:
    report = NightlyReport.read(stored)
    return {
        "config_name": report.config.name[:MODEL_NAME_LENGTH],
        "config_sha256": report.config.sha256,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "exit_code": report.exit_code,
        "outcomes": [
            {name: getattr(item, name) for name in Outcome.model_fields} for item in report.items
        ],
    }


_SUMMARIES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "paired": _paired,
    "kernels": _kernels,
    "determinism": _determinism,
    "nightly": _nightly,
}


#: Gives the id of the job that the report belongs to, in the same transaction.
JobOf = Callable[[Connection], str]


def store_report(
    report: Mapping[str, Any],
    *,
    kind: str,
    model: str | None,
    workdir: Path,
    job_of: JobOf,
    database: Database,
    files: ReportFiles,
) -> ReportFile:
    """All or nothing: a report that cannot be recorded leaves no file."""
    file = files.write(report, workdir)
    try:
        with database.write() as connection:
            summary = summarise(report)
            ReportRepository(connection).add(
                file, job_id=job_of(connection), kind=kind, model=model, summary=summary
            )
            _put_verdicts(kind, model, summary, file.report_id, connection)
    except Exception:
        files.discard(file)
        raise
    return file


def _put_verdicts(
    kind: str,
    model: str | None,
    summary: Mapping[str, Any],
    report_id: str,
    connection: Connection,
) -> None:
    if kind == kernels_job.KIND:
        KernelVerdictRepository(connection).put(summary["verdicts"], report_id)
    elif kind == determinism_job.KIND:
        assert model is not None
        DeterminismRepository(connection).put(model, summary["axes"], report_id)
    elif kind == nightly_job.KIND:
        NightlyRepository(connection).add(summary, report_id)
