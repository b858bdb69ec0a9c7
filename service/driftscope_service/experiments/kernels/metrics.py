"""Families of kernel checks: verdicts and planted faults. In: stored verdicts. Out: Family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_service.experiments.kernels.job import KERNEL_TARGETS, NAME
from driftscope_service.experiments.kernels.store import KernelVerdictRepository, StoredVerdict
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

KERNEL_VERDICT = gauge(
    "kernel_verdict",
    "",
    "1 where the last check of a kernel came to this verdict; several of one op may differ.",
    "target",
    "op",
    "dtype",
    "threads",
    "verdict",
)
KERNEL_PLANTED = gauge(
    "kernel_planted",
    "faults",
    "Kernels with a planted fault in the last kernel check, all of which it must refute.",
)
KERNEL_PLANTED_CAUGHT = gauge(
    "kernel_planted_caught", "faults", "Planted faults that the last kernel check refuted."
)
KERNELS_LAST_SUCCESS = gauge(
    "kernels_last_success_timestamp",
    "seconds",
    "Unix time at which the last successful kernel check was stored.",
)
#: Packages may register kernels under names of their own; the label takes only driftscope's.
OTHER_TARGET = "other"
METRICS: Final = (KERNEL_VERDICT, KERNEL_PLANTED, KERNEL_PLANTED_CAUGHT, KERNELS_LAST_SUCCESS)


def families(connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    check = ReportRepository(connection).latest(NAME)
    yield _kernel_verdicts(KernelVerdictRepository(connection).all())
    total = Family(KERNEL_PLANTED)
    caught = Family(KERNEL_PLANTED_CAUGHT)
    last_success = Family(KERNELS_LAST_SUCCESS)
    if check is not None:
        total.add([], check.summary["planted"]["total"])
        caught.add([], check.summary["planted"]["caught"])
        last_success.add([], check.created_at.timestamp())
    yield from (total, caught, last_success)


def _kernel_verdicts(verdicts: Iterable[StoredVerdict]) -> Family:
    """One sample per labels, however many implementations share them."""
    subjects = {
        (
            verdict.target if verdict.target in KERNEL_TARGETS else OTHER_TARGET,
            verdict.op,
            verdict.dtype,
            str(verdict.threads),
            verdict.verdict,
        )
        for verdict in verdicts
    }
    family = Family(KERNEL_VERDICT)
    for labels in sorted(subjects):
        family.add(labels, 1.0)
    return family
