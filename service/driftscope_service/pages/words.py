"""Points in time as readers of a page say them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from markupsafe import Markup

from driftscope_probes.plural import counted

Tone: TypeAlias = Literal["good", "watch", "bad", "none"]


@dataclass(frozen=True, slots=True)
class RunState:
    tone: Tone
    word: str
    sentence: str


_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
#: Below it a count of seconds would be old by the time it is read.
_JUST_NOW_S: Final = 60


def absolute(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(when: datetime) -> Markup:
    """A point in time; a script shows the reader's own and keeps this one as the tooltip."""
    return Markup('<time datetime="{}">{}</time>').format(iso(when), absolute(when))


def ago_time(when: datetime) -> Markup:
    """How long ago, with the point in time as the tooltip."""
    told = '<time datetime="{}" data-ago title="{}">{}</time>'
    return Markup(told).format(iso(when), absolute(when), ago(when))


def iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def ago(when: datetime, now: datetime | None = None) -> str:
    passed = ((now or datetime.now(UTC)) - when).total_seconds()
    if passed < _JUST_NOW_S:
        return "just now"
    size, unit = next(entry for entry in _UNITS if passed >= entry[0])
    count = int(passed // size)
    return f"{counted(count, unit)} ago"
