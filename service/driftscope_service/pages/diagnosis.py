"""A diagnosis as pages show it: the answer first, its evidence, its plot.

In: Diagnosis. Out: DiagnosisView for parts/diagnosis.html.jinja. Free of the web framework, since
the command line renders reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftscope_probes.diagnosis.cause import Diagnosis, Evidence, NamedCause, Plot
from driftscope_service.numbers import diagnosis_words as words
from driftscope_service.numbers.metric_words import number
from driftscope_service.pages.words import Tone

TONES: Final[Mapping[str, Tone]] = {
    "bitwise_equal": "good",
    "at_floor": "good",
    "above_floor": "watch",
    "bug_like": "bad",
    "not_comparable": "bad",
}


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    what: str
    value: str
    expected: str


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    title: str
    confidence: str
    remedy: str
    next_control: str
    doc: str
    evidence: tuple[EvidenceRow, ...]


@dataclass(frozen=True, slots=True)
class DiagnosisView:
    tone: Tone
    word: str
    term: str  # of the glossary, what the word means
    sentence: str
    excess: str
    cause: Candidate | None
    unexplained: bool
    stood_out: tuple[EvidenceRow, ...]
    plot: Plot | None
    others: tuple[Candidate, ...]
    missing: tuple[str, ...]


def diagnosis_view(diagnosis: Diagnosis | None) -> DiagnosisView | None:
    if diagnosis is None:
        return None
    return DiagnosisView(
        tone=TONES[diagnosis.verdict],
        word=words.verdict_words(diagnosis.verdict),
        term=f"verdict-{diagnosis.verdict.replace('_', '-')}",
        sentence=diagnosis.sentence,
        excess=words.excess_words(diagnosis),
        cause=None if diagnosis.cause is None else _candidate(diagnosis.cause),
        unexplained=diagnosis.unexplained,
        stood_out=_rows(diagnosis.stood_out),
        plot=shown_plot(diagnosis),
        others=tuple(map(_candidate, words.others(diagnosis))),
        missing=diagnosis.missing,
    )


def shown_plot(diagnosis: Diagnosis) -> Plot | None:
    """Of the answer alone: a candidate's picture would be taken for one."""
    return None if diagnosis.cause is None else diagnosis.cause.plot


def _candidate(cause: NamedCause) -> Candidate:
    return Candidate(
        cause.name,
        cause.title[:1].upper() + cause.title[1:],
        words.confidence(cause),
        cause.remedy,
        cause.next_control,
        cause.doc,
        _rows(cause.evidence),
    )


def _rows(items: tuple[Evidence, ...]) -> tuple[EvidenceRow, ...]:
    return tuple(EvidenceRow(one.what, words.evidence_value(one), one.expected) for one in items)


def plot_rows(plot: Plot) -> list[tuple[str, str]]:
    """For who reads rather than looks."""
    return [
        (number(x), "–" if y is None else number(y)) for x, y in zip(plot.x, plot.y, strict=True)
    ]
