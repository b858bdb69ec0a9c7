"""What happened to a run at one point in time: all numbers that moved there, as one event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

ChangeKind = Literal["shift", "growth"]
EventKind = Literal["shift", "growth", "resume"]


@dataclass(frozen=True, slots=True)
class NumberMoved:
    """One number at an event. `before` and `after` are medians in the number's unit."""

    metric: str  # of SERIES
    kind: ChangeKind
    step: int  # first one that differs, by this number alone
    low: int  # 95 % interval of `step`
    high: int
    before: float
    after: float  # growth: the latest level
    ratio: float | None  # after / before; None where before is 0
    noise_units: float | None  # |after - before| in stds of the noise before; None: no noise
    returned_at: int | None = None  # first step back at `before`; told of a resume only


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    step: int  # the sharpest estimate among the numbers; of a resume, where the attempt begins
    low: int  # 95 % interval of `step`
    high: int
    found_at: int  # step at which the first number told it
    numbers: tuple[NumberMoved, ...]  # the first and strongest; none: a resume that moved nothing
    folded: tuple[NumberMoved, ...]  # what moved with or after them

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
