"""Families of the last verdict on every axis of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_probes.verdicts import NOT_RUN, RANKS
from driftscope_service.experiments.determinism.store import AxisVerdict, DeterminismRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

_DETERMINISM = ("model", "axis", "dtype", "kernels")
DETERMINISM_VERDICT = gauge(
    "determinism_verdict",
    "",
    "1 where the last probe came to this verdict on the axis.",
    *_DETERMINISM,
    "verdict",
)
DETERMINISM_UNIQUE = gauge(
    "determinism_unique",
    "outputs",
    "Different outputs among those that the axis compared.",
    *_DETERMINISM,
)
DETERMINISM_MISMATCHED = gauge(
    "determinism_mismatched",
    "tokens",
    "Tokens whose log-probability has other bits than in the first output.",
    *_DETERMINISM,
)
METRICS: Final = (DETERMINISM_VERDICT, DETERMINISM_UNIQUE, DETERMINISM_MISMATCHED)


def families(connection: Connection, offered: frozenset[str]) -> Iterator[Family]:
    """One sample per model, axis, dtype and kernels; the worst of several engines."""
    verdict = Family(DETERMINISM_VERDICT)
    unique = Family(DETERMINISM_UNIQUE)
    mismatched = Family(DETERMINISM_MISMATCHED)
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
    badness = (NOT_RUN["engine"], *reversed(RANKS["engine"]))
    worst: dict[tuple[str, ...], AxisVerdict] = {}
    for each in verdicts:
        subject = (each.model, each.axis, each.dtype, each.kernels)
        before = worst.get(subject)
        if before is None or badness.index(each.verdict) > badness.index(before.verdict):
            worst[subject] = each
    return list(worst.values())
