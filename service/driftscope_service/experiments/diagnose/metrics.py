"""Families of the last diagnosis by controls of every model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_service.experiments.diagnose.job import NAME
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

CONFIDENCE = gauge(
    "diagnose_cause_confidence",
    "ratio",
    "Probability of each cause after the controls of the model's last diagnosis.",
    "model",
    "cause",
)
CONTROLS = gauge(
    "diagnose_controls",
    "",
    "Controls that the model's last diagnosis took.",
    "model",
)
METRICS: Final = (CONFIDENCE, CONTROLS)


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    confidence, controls = Family(CONFIDENCE), Family(CONTROLS)
    for report in ReportRepository(connection).latest_per_model(NAME):
        # Bounds the label: reports of a model that is no longer offered are left out.
        if report.model is None or report.model not in offered:
            continue
        for cause in report.summary["causes"]:
            confidence.add([report.model, cause["name"]], cause["confidence"])
        controls.add([report.model], report.summary["controls"])
    yield confidence
    yield controls
