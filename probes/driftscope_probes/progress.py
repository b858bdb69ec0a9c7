"""Progress of long work: a stage, a fraction of the whole, a short detail. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str  # what is being done now, in words a user reads
    fraction: float  # done of the whole job, 0 to 1
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Told(Progress):
    """Progress with something that the parent waits for: a finding, or an answer."""

    told: Mapping[str, Any] = field(default_factory=dict)


ProgressSink = Callable[[Progress], None]


def discard(_: Progress) -> None:
    """A sink for callers that do not watch."""


def scaled(sink: ProgressSink, start: float, end: float, prefix: str = "") -> ProgressSink:
    """Map a part's own 0..1 onto start..end of the whole; `prefix` names the part."""

    def forward(progress: Progress) -> None:
        part = min(1.0, max(0.0, progress.fraction))
        # Not start + (end − start) · part, which can round to more than `end` at 1.
        fraction = start * (1.0 - part) + end * part
        sink(Progress(prefix + progress.stage, fraction, progress.detail))

    return forward
