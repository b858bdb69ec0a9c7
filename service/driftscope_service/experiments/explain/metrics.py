"""Families of the last explanation of every model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_probes.explain.report import VERDICTS
from driftscope_probes.explain.sites import KIND_LABELS
from driftscope_service.experiments.explain.job import NAME
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

EQUAL = gauge(
    "explain_op_equal",
    "ratio",
    "Lowest fraction, of all layers, of bitwise equal elements that the op gives on equal inputs "
    "in the model's last explanation.",
    "model",
    "op",
)
GAP = gauge(
    "explain_gap_abs_diff",
    "nats",
    "Mean |Δ| in the model's last explanation.",
    "model",
)
AFTER_SWAP = gauge(
    "explain_gap_after_swap",
    "nats",
    "Mean |Δ| with all ops that were named replaced together, in the model's last explanation.",
    "model",
)
VERDICT = gauge(
    "explain_verdict",
    "",
    "1 for the verdict of the model's last explanation, 0 for the others.",
    "model",
    "verdict",
)
METRICS: Final = (EQUAL, GAP, AFTER_SWAP, VERDICT)


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    equal, gap, after, verdict = (Family(metric) for metric in METRICS)
    for report in ReportRepository(connection).latest_per_model(NAME):
        # Bounds the label: reports of a model that is no longer offered are left out.
        if report.model is None or report.model not in offered:
            continue
        summary = report.summary
        # Likewise of ops: a report may have been made elsewhere.
        for op in KIND_LABELS:
            if op in summary["equal_by_op"]:
                equal.add([report.model, op], summary["equal_by_op"][op])
        for family, name in ((gap, "abs_diff_mean"), (after, "abs_diff_mean_after")):
            if summary[name] is not None:
                family.add([report.model], summary[name])
        for one in VERDICTS:
            verdict.add([report.model, one], float(summary["verdict"] == one))
    yield from (equal, gap, after, verdict)
