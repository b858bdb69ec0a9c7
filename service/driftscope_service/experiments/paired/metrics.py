"""Families of the last paired probe of every model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_service.experiments.paired.job import NAME
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import CELL_SAMPLES, gauge

PAIRED_LAST_SUCCESS = gauge(
    "paired_last_success_timestamp",
    "seconds",
    "Unix time at which the last successful paired probe of the model was stored.",
    "model",
)
METRICS: Final = (*dict.fromkeys(sample.metric for sample in CELL_SAMPLES), PAIRED_LAST_SUCCESS)


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    """One family per number of a cell, with one sample per cell in which it is defined."""
    of_name = {sample.metric.name: Family(sample.metric) for sample in CELL_SAMPLES}
    last_success = Family(PAIRED_LAST_SUCCESS)
    for report in ReportRepository(connection).latest_per_model(NAME):
        # Bounds the label: reports of a model that is no longer offered are left out.
        if report.model is None or report.model not in offered:
            continue
        last_success.add([report.model], report.created_at.timestamp())
        for cell in report.summary["cells"]:
            labels = [report.model, cell["engine_dtype"], cell["trainer_dtype"]]
            for sample in CELL_SAMPLES:
                # Reports of older versions lack newer numbers.
                value = cell["comparison"].get(sample.source)
                if value is not None:
                    of_name[sample.metric.name].add([*labels, *sample.more_labels], value)
    yield from of_name.values()
    yield last_success
