"""How good the diagnosis over steps is: what it answered to runs whose course is known.

In: answers, one per run. Out: CourseScore. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from driftscope_probes.diagnosis.cause import NAMED_FROM


@dataclass(frozen=True, slots=True)
class CourseAnswer:
    """One run and what was said of its steps together."""

    cause: str | None  # None: a healthy run
    way: str
    severity: float  # 0 to 1
    setting: str
    first: tuple[str, ...]  # causes, most likely first
    confidence: float  # of the first; 0 without any
    excess: tuple[float | None, ...]  # per step, measured noise over the floor

    @property
    def named(self) -> str | None:
        """The first cause, where it is sure enough to be called the answer."""
        return self.first[0] if self.first and self.confidence >= NAMED_FROM else None


@dataclass(frozen=True, slots=True)
class CourseScore:
    """Fractions 0 to 1; None where no such run was made."""

    runs: int  # with a fault
    healthy: int
    top1: float | None
    healthy_false_alarms: float | None
    by_cause: Mapping[str, Mapping[str, int]]  # injected → named → runs; "healthy", "nothing"

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "by_cause": {name: dict(row) for name, row in self.by_cause.items()},
        }


def score_courses(answers: Sequence[CourseAnswer]) -> CourseScore:
    """Right is the cause that is named: a candidate below NAMED_FROM is none."""
    faulty = [answer for answer in answers if answer.cause is not None]
    healthy = [answer for answer in answers if answer.cause is None]
    by_cause: dict[str, dict[str, int]] = {}
    for answer in answers:
        row = by_cause.setdefault(answer.cause or "healthy", {})
        row[answer.named or "nothing"] = row.get(answer.named or "nothing", 0) + 1
    return CourseScore(
        len(faulty),
        len(healthy),
        _fraction(answer.named == answer.cause for answer in faulty),
        _fraction(answer.named is not None for answer in healthy),
        {name: by_cause[name] for name in sorted(by_cause)},
    )


def _fraction(held: Iterable[bool]) -> float | None:
    values = list(held)
    return sum(values) / len(values) if values else None
