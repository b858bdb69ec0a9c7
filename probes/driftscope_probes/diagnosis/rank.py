"""Rank: from what each detector says to an ordered list with confidences.

In: findings by cause. Out: named causes. Causes exclude each other: each one's odds stand against
those of all others and of none. An earlier level explains what later tests see.
"""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import Finding, NamedCause
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.base import LEVELS, Cause

#: What an earlier level at full confidence leaves of a later one's.
EXPLAINED_AWAY = 0.9
#: Candidates below this are not shown.
SHOWN_FROM = 0.05
MOST_SHOWN = 6
#: Of those, so many carry their plot.
MOST_PLOTTED = 2
#: No finding is surer than this: detectors err.
MOST_CONFIDENCE = 0.98


def ranked(seen: Examination, findings: Mapping[str, Finding]) -> tuple[NamedCause, ...]:
    """Most likely first."""
    known = catalogue().by_name
    left = 1.0
    heard: dict[str, float] = {}
    for level in LEVELS:
        here = {
            name: min(found.confidence, MOST_CONFIDENCE) * left
            for name, found in findings.items()
            if known[name].level == level
        }
        heard |= here
        strongest = max(
            (value for name, value in here.items() if not known[name].healthy), default=0.0
        )
        left *= 1.0 - EXPLAINED_AWAY * strongest
    odds = {name: value / (1.0 - value) for name, value in heard.items() if value > 0}
    total = 1.0 + sum(odds.values())
    order = sorted(odds, key=lambda name: -odds[name])
    shown = [name for name in order if odds[name] / total >= SHOWN_FROM][:MOST_SHOWN]
    return tuple(
        _named(seen, known[name], findings[name], odds[name] / total, rank < MOST_PLOTTED)
        for rank, name in enumerate(shown)
    )


def _named(
    seen: Examination, cause: Cause, found: Finding, confidence: float, plotted: bool
) -> NamedCause:
    return NamedCause(
        cause.name,
        cause.title,
        confidence,
        found.evidence,
        cause.remedy,
        cause.next_control,
        cause.doc,
        cause.plot(seen) if plotted else None,
    )
