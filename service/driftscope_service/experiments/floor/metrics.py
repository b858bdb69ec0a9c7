"""Families of the last floor of every model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_service.experiments.floor.job import NAME
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

FLOOR_SIGMA = gauge(
    "floor_sigma",
    "nats",
    "Noise on the logits that rounding alone explains, from the model's last floor.",
    "model",
    "rollout_dtype",
    "trainer_dtype",
)
METRICS: Final = (FLOOR_SIGMA,)


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    sigma = Family(FLOOR_SIGMA)
    for report in ReportRepository(connection).latest_per_model(NAME):
        # Bounds the label: reports of a model that is no longer offered are left out.
        if report.model is None or report.model not in offered:
            continue
        for pair in report.summary["pairs"]:
            labels = [report.model, pair["rollout_dtype"], pair["trainer_dtype"]]
            sigma.add(labels, pair["sigma"])
    yield sigma
