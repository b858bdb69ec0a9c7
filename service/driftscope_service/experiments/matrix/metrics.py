"""Families of the last matrix of every model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_probes.dtypes import BASE_MODES, HEAD_SUFFIX
from driftscope_service.experiments.matrix.job import NAME
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

_SUBJECT = ("model", "side", "way", "dtype")
MATRIX_CLASSES = gauge(
    "matrix_classes",
    "",
    "Classes of places with equal bits in the model's last matrix; 1: all places agree.",
    *_SUBJECT,
)
MATRIX_ABS_DIFF = gauge(
    "matrix_abs_diff",
    "nats",
    "Mean |Δ| between the two classes of places that lie furthest apart.",
    *_SUBJECT,
)
MATRIX_PLACES = gauge(
    "matrix_places",
    "",
    "Places of the model's last matrix, by what became of them.",
    "model",
    "state",
)
METRICS: Final = (MATRIX_CLASSES, MATRIX_ABS_DIFF, MATRIX_PLACES)
#: Bounds the label: a report that was handed in may name others.
_DTYPES: Final = frozenset(f"{mode}{suffix}" for mode in BASE_MODES for suffix in ("", HEAD_SUFFIX))


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    classes, abs_diff = Family(MATRIX_CLASSES), Family(MATRIX_ABS_DIFF)
    places = Family(MATRIX_PLACES)
    for report in ReportRepository(connection).latest_per_model(NAME):
        if report.model is None or report.model not in offered:
            continue
        for state in ("ran", "failed"):
            places.add([report.model, state], report.summary[state])
        for one in report.summary["subjects"]:
            if one["dtype"] not in _DTYPES:
                continue
            labels = [report.model, one["side"], one["way"], one["dtype"]]
            classes.add(labels, one["classes"])
            if one["abs_diff_mean"] is not None:
                abs_diff.add(labels, one["abs_diff_mean"])
    yield from (classes, abs_diff, places)
