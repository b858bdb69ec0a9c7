"""What happened to a run, in words: one event per point in time, its first numbers on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.plural import counted
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import number

#: Events on a page, the newest; the API has more.
MOST: Final = 20
#: A change by less than a tenth is seen from both numbers.
TELLING: Final = 1.1


@dataclass(frozen=True, slots=True)
class MovedRow:
    metric: str
    label: str
    step: int
    when: str  # the step by this number alone, with its interval
    what: str


@dataclass(frozen=True, slots=True)
class EventRow:
    step: int
    interval: str  # "" where the step is sure
    kind: str
    found_at: int
    told: list[MovedRow]
    folded: list[MovedRow]


def event_rows(drift: Mapping[str, Any]) -> list[EventRow]:
    """Of Drift.to_dict(), newest first."""
    return [_event_row(event) for event in drift["events"][::-1][:MOST]]


def _event_row(event: Mapping[str, Any]) -> EventRow:
    return EventRow(
        step=event["step"],
        interval=interval(event),
        kind={"shift": "shifted", "growth": "growing", "resume": "resumed"}[event["kind"]],
        found_at=event["found_at"],
        told=_moved_rows(event["numbers"], event["kind"]),
        folded=_moved_rows(event["folded"], event["kind"]),
    )


def _moved_rows(moved: Sequence[Mapping[str, Any]], kind: str) -> list[MovedRow]:
    return [
        MovedRow(
            metric=one["metric"],
            label=metric_words.label(one["metric"]),
            step=one["step"],
            when=when(one),
            what=_what(one, resumed=kind == "resume"),
        )
        for one in moved
    ]


def interval(dated: Mapping[str, Any]) -> str:
    """ "" where the estimate leaves no other step."""
    if dated["low"] == dated["high"]:
        return ""
    return f"{dated['low']:,} to {dated['high']:,}"


def when(dated: Mapping[str, Any]) -> str:
    """The step, and where it may lie."""
    between = interval(dated)
    return f"{dated['step']:,} ({between})" if between else f"{dated['step']:,}"


def event_sentence(event: Mapping[str, Any]) -> str:
    """Of an event at which a number moved: its first number, its step, and how many moved too."""
    first = event["numbers"][0]
    label = metric_words.label(first["metric"])
    others = len(event["numbers"]) + len(event["folded"]) - 1
    along = f", and {counted(others, 'other number')} with it" if others else ""
    if event["kind"] == "resume":
        what = _at_a_resume(first)
        return f"{label} was {what} after the resume at step {event['step']:,}{along}"
    what = _what(first, resumed=False)
    since = "since" if first["kind"] == "growth" else "at"
    return f"{label} {what} {since} step {when(event)}{along}"


def _what(moved: Mapping[str, Any], *, resumed: bool) -> str:
    if resumed:
        return _at_a_resume(moved)
    before, after = (metric_words.value(moved["metric"], moved[key]) for key in ("before", "after"))
    unit = metric_words.metric(moved["metric"]).unit
    if before == after:
        return f"is no longer constant at {before}"
    if moved["kind"] == "growth":
        verb = "has grown" if moved["after"] > moved["before"] else "has fallen"
    else:
        verb = "moved"
    return f"{verb} from {before} to {after}{' ' + unit if unit else ''}{_times(moved['ratio'])}"


def _at_a_resume(moved: Mapping[str, Any]) -> str:
    name = moved["metric"]
    away = metric_words.with_unit(name, moved["after"])
    level = metric_words.value(name, moved["before"])
    if moved["returned_at"] is None:
        return f"{away} instead of {level} ever since"
    steps = counted(moved["returned_at"] - moved["step"], "step")
    return f"{away} for {steps}, then back at {level} from step {moved['returned_at']:,}"


def _times(ratio: float | None) -> str:
    """ "" for a number near 1 such as a correlation, whose ratio says nothing."""
    if ratio is None or ratio <= 0 or 1 / TELLING < ratio < TELLING:
        return ""
    return f" ({number(ratio)} times)"
