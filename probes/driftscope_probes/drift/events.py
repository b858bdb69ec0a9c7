"""What happened to a run at one point in time: all numbers that moved there, as one event."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

ChangeKind = Literal["shift", "growth"]
EventKind = Literal["shift", "growth", "resume"]
#: Numbers that are told first; the rest is folded.
TOLD: Final = 3
#: Steps beyond the interval of an event within which another number's change belongs to it.
BESIDE: Final = 1
#: So many stds of the noise are as clear as more are: what is beyond is ordered as the series are.
CLEAR: Final = 20.0
#: What the trainer does, not what comes of it: if these moved, they come first.
INPUTS: Final = ("lag_mean", "stale_token_share")


@dataclass(frozen=True, slots=True)
class NumberMoved:
    """One number at an event. `before` and `after` are medians in the number's unit."""

    metric: str  # of SERIES
    kind: ChangeKind
    step: int  # first one that differs, by this number alone
    low: int  # 95 % interval of `step`
    high: int
    found_at: int  # step at which this number told it
    before: float
    after: float  # growth: what it has come to; resume: while it was away
    ratio: float | None  # after / before; None where before is 0
    noise_units: float | None  # size in stds of the noise; None: there is no noise
    returned_at: int | None = None  # first step back at `before`; told of a resume only

    @property
    def clearness(self) -> float:
        return CLEAR if self.noise_units is None else min(CLEAR, self.noise_units)


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    step: int  # the sharpest estimate among the numbers; of a resume, where the attempt begins
    low: int  # 95 % interval of `step`
    high: int
    found_at: int  # step at which the first number told it
    numbers: tuple[NumberMoved, ...]  # the first and strongest; none: a resume that moved nothing
    folded: tuple[NumberMoved, ...]  # what moved with or after them

    @property
    def moved(self) -> tuple[NumberMoved, ...]:
        return self.numbers + self.folded

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ratio_of(after: float, before: float) -> float | None:
    ratio = after / before if before else math.inf
    return ratio if math.isfinite(ratio) else None


def events_of(
    moved: Sequence[NumberMoved], at_resumes: Sequence[NumberMoved], resumed_at: Sequence[int]
) -> tuple[Event, ...]:
    """moved: changes of all numbers; at_resumes: what resumes did, `step` being the resume's; both
    in the order of SERIES. resumed_at: rising. Rising by step."""
    resumes = [_resume(step, at_resumes) for step in resumed_at]
    left = list(moved)
    found = list[Event]()
    while left:
        # The sharpest date leads: numbers at one event see the same change, some of them clearer.
        lead = min(left, key=lambda one: (one.high - one.low, -one.clearness))
        joined = [one for one in left if _together(one, lead)]
        left = [one for one in left if one not in joined]
        found.append(_event(_kind(joined), lead, joined))
    found.sort(key=lambda event: event.step)
    return tuple(sorted([*resumes, *_without_consequences(found)], key=lambda one: one.step))


def _together(one: NumberMoved, lead: NumberMoved) -> bool:
    if one is lead:
        return True
    return (
        one.metric != lead.metric
        and one.low - BESIDE <= lead.high
        and one.high + BESIDE >= lead.low
    )


def _kind(moved: Sequence[NumberMoved]) -> Literal["shift", "growth"]:
    if any(one.kind == "growth" and one.metric in INPUTS for one in moved):
        return "growth"
    growing = sum(one.kind == "growth" for one in moved)
    return "growth" if 2 * growing >= len(moved) else "shift"


def _event(kind: EventKind, lead: NumberMoved, moved: Iterable[NumberMoved]) -> Event:
    ranked = sorted(moved, key=lambda one: _rank(one, lead))
    return Event(
        kind,
        *(lead.step, lead.low, lead.high),
        min(one.found_at for one in ranked),
        tuple(ranked[:TOLD]),
        tuple(ranked[TOLD:]),
    )


def _rank(one: NumberMoved, lead: NumberMoved) -> tuple[bool, bool, float]:
    """Causes, then what moved first, then what moved most; equals stay in the order of SERIES."""
    return one.metric not in INPUTS, one.low > lead.high, -one.clearness


def _resume(step: int, at_resumes: Sequence[NumberMoved]) -> Event:
    moved = [one for one in at_resumes if one.step == step]
    if not moved:
        return Event("resume", step, step, step, step, (), ())
    return _event("resume", moved[0], moved)


def _without_consequences(events: Sequence[Event]) -> list[Event]:
    """While numbers grow, others follow: what had not moved before is folded into the growth."""
    kept: list[Event] = []
    for event in events:
        cause = kept[-1] if kept else None
        if cause is not None and cause.kind == "growth" and _follows(event, cause):
            kept[-1] = replace(cause, folded=(*cause.folded, *event.moved))
        else:
            kept.append(event)
    return kept


def _follows(event: Event, cause: Event) -> bool:
    """Not if a number that told the cause moved anew: that is beyond its line."""
    known = {one.metric for one in cause.numbers}
    return all(one.metric not in known for one in event.moved)
