"""Families of HTTP requests, from what the meter counted. In: RequestTotals. Out: Family."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from driftscope_service.export import metric_names
from driftscope_service.export.exposition import Family
from driftscope_service.middleware.request_meter import DURATION_EDGES_S, RequestTotals


def request_families(totals: RequestTotals) -> Iterator[Family]:
    """Routes that nobody has asked for have no series yet."""
    requests = Family(metric_names.HTTP_REQUESTS)
    for labels, number in sorted(totals.answers.items()):
        requests.add(labels, number)
    durations = Family(metric_names.HTTP_DURATION)
    edges = (*DURATION_EDGES_S, math.inf)
    for route, known in sorted(totals.durations.items()):
        buckets = zip(edges, accumulate(known.counts), strict=True)
        durations.add_distribution([route], buckets, known.sum_s)
    yield requests
    yield durations
