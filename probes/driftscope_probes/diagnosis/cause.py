"""Evidence, what a detector finds, and the Diagnosis that is made of it.

In: nothing. Out: the values of a diagnosis, `to_dict` as docs/push-api.md shows it. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from driftscope_probes.diagnosis.floor import Floor

ComparisonVerdict = Literal[
    "bitwise_equal", "at_floor", "above_floor", "bug_like", "not_comparable"
]
#: A cause below this confidence is a candidate, not an answer: the step is then `unexplained`.
NAMED_FROM = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured number beside what would be expected without the cause."""

    what: str
    value: float | int | str
    expected: str

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "value": self.value, "expected": self.expected}


@dataclass(frozen=True, slots=True)
class Plot:
    """The one picture of a cause's evidence; x and y have equal lengths."""

    kind: Literal["line", "points", "bars"]
    title: str
    x_label: str  # with its unit
    y_label: str  # with its unit
    x: tuple[float, ...]
    y: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "title": self.title,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "x": list(self.x),
            "y": list(self.y),
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector's word: how sure it is by itself, before other causes are heard."""

    confidence: float  # 0 to 1
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class NamedCause:
    """A cause with its confidence in this step, as users read it."""

    name: str
    title: str
    confidence: float  # 0 to 1, calibrated by `driftscope drill`
    evidence: tuple[Evidence, ...]
    remedy: str
    next_control: str
    doc: str
    plot: Plot | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "confidence": round(self.confidence, 3),
            "evidence": [item.to_dict() for item in self.evidence],
            "remedy": self.remedy,
            "next_control": self.next_control,
            "doc": self.doc,
            "plot": None if self.plot is None else self.plot.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Verdict, ranked causes, and what data would have told more."""

    verdict: ComparisonVerdict
    sentence: str  # the whole answer in one or two sentences, said first everywhere
    excess: float | None  # measured sigma / floor sigma; None without a measured sigma
    sigma: float | None  # nats on the logits: sqrt(sum Δ² / sum (1 - p)²) of finite tokens
    floor: Floor
    causes: tuple[NamedCause, ...]  # most likely first
    unexplained: bool  # not at the floor, and no cause reaches NAMED_FROM
    stood_out: tuple[Evidence, ...]  # features that are not those of rounding
    missing: tuple[str, ...]  # what data would separate the rest

    @property
    def cause(self) -> NamedCause | None:
        """The first cause, where it is sure enough to be called the answer."""
        if self.causes and self.causes[0].confidence >= NAMED_FROM:
            return self.causes[0]
        return None

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "excess": self.excess,
            "sigma": self.sigma,
            "floor": self.floor.to_dict(),
            "causes": [cause.to_dict() for cause in self.causes],
            "unexplained": self.unexplained,
            "stood_out": [item.to_dict() for item in self.stood_out],
            "missing": list(self.missing),
        }
