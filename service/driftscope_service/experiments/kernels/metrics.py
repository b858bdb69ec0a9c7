"""Families of kernel checks: verdicts and planted faults. In: stored verdicts. Out: Family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection

from driftscope_service.experiments.kernels.job import NAME
from driftscope_service.experiments.kernels.store import KernelVerdictRepository, StoredVerdict
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import KERNEL_TARGETS, OTHER_TARGET


def families(connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    check = ReportRepository(connection).latest(NAME)
    yield _kernel_verdicts(KernelVerdictRepository(connection).all())
    total = Family(metric_names.KERNEL_PLANTED)
    caught = Family(metric_names.KERNEL_PLANTED_CAUGHT)
    last_success = Family(metric_names.KERNELS_LAST_SUCCESS)
    if check is not None:
        total.add([], check.summary["planted"]["total"])
        caught.add([], check.summary["planted"]["caught"])
        last_success.add([], check.created_at.timestamp())
    yield from (total, caught, last_success)


def _kernel_verdicts(verdicts: Iterable[StoredVerdict]) -> Family:
    """One sample per labels, however many implementations share them."""
    found = {
        (
            verdict.target if verdict.target in KERNEL_TARGETS else OTHER_TARGET,
            verdict.op,
            verdict.dtype,
            str(verdict.threads),
            verdict.verdict,
        )
        for verdict in verdicts
    }
    family = Family(metric_names.KERNEL_VERDICT)
    for labels in sorted(found):
        family.add(labels, 1.0)
    return family
