"""Families of pushes, from what the meter counted. In: UploadTotals. Out: Family."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from driftscope_service.export import metric_names
from driftscope_service.export.exposition import Family, one
from driftscope_service.middleware.upload_meter import DURATION_EDGES_S, REASONS, UploadTotals


def ingest_families(totals: UploadTotals, limit: int) -> Iterator[Family]:
    """Every result and reason from the start, at 0: the first one of a kind is an increase."""
    results = Family(metric_names.INGEST_REQUESTS)
    for result in metric_names.INGEST_RESULTS:
        results.add([result], totals.results[result])
    reasons = Family(metric_names.INGEST_REFUSED)
    for reason in sorted(REASONS):
        reasons.add([reason], totals.reasons[reason])
    durations = Family(metric_names.INGEST_DURATION)
    edges = (*DURATION_EDGES_S, math.inf)
    counts = accumulate(totals.durations)
    durations.add_distribution([], zip(edges, counts, strict=True), totals.duration_sum_s)
    yield results
    yield reasons
    yield one(metric_names.INGEST_BYTES, totals.received_bytes)
    yield one(metric_names.INGEST_IN_FLIGHT, totals.in_flight)
    yield one(metric_names.INGEST_LIMIT, limit)
    yield durations
