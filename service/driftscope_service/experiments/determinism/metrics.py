"""Families of the last determinism verdicts and of the last night.

In: stored verdicts and nights. Out: Family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from driftscope_probes.verdicts import NOT_RUN, RANKS
from driftscope_service.experiments.determinism.store import AxisVerdict
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family


def determinism_families(verdicts: Iterable[AxisVerdict]) -> Iterator[Family]:
    """One sample per model, axis, dtype and kernels; of several engines the worst."""
    verdict = Family(metric_names.DETERMINISM_VERDICT)
    unique = Family(metric_names.DETERMINISM_UNIQUE)
    mismatched = Family(metric_names.DETERMINISM_MISMATCHED)
    for each in _worst(verdicts):
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
        known = worst.get(subject)
        if known is None or badness.index(each.verdict) > badness.index(known.verdict):
            worst[subject] = each
    return list(worst.values())
