"""Families of the last verdict on every axis of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection

from driftscope_service.experiments.determinism.store import AxisVerdict, DeterminismRepository
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    """One sample per model, axis, dtype and kernels; of several engines the worst."""
    verdict = Family(metric_names.DETERMINISM_VERDICT)
    unique = Family(metric_names.DETERMINISM_UNIQUE)
    mismatched = Family(metric_names.DETERMINISM_MISMATCHED)
    axes = DeterminismRepository(connection).all()
    for each in _worst(axis for axis in axes if axis.model in offered):
        labels = [each.model, each.axis, each.dtype, each.kernels]
        verdict.add([*labels, each.verdict], 1.0)
        if each.unique_outputs is not None:
            unique.add(labels, each.unique_outputs)
        if each.mismatched_tokens is not None:
            mismatched.add(labels, each.mismatched_tokens)
    yield from (verdict, unique, mismatched)


def _worst(verdicts: Iterable[AxisVerdict]) -> list[AxisVerdict]:
    badness = ("not_run", "equal", "differs")
    worst: dict[tuple[str, ...], AxisVerdict] = {}
    for each in verdicts:
        subject = (each.model, each.axis, each.dtype, each.kernels)
        before = worst.get(subject)
        if before is None or badness.index(each.verdict) > badness.index(before.verdict):
            worst[subject] = each
    return list(worst.values())
