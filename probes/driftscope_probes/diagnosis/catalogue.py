"""Catalogue: our causes, and those that other packages offer by entry point.

In: values of the entry-point group "driftscope.causes", each a Cause or several. Out: the causes
that a step is held against, and what was refused, with the reason. Code of others ends here: what
it raises is logged, and the answer is given without it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Generic, TypeVar

from driftscope_probes.diagnosis.cause import Evidence, Finding, Plot
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.base import LEVELS, Cause
from driftscope_probes.diagnosis.families.registry import BY_NAME, CAUSES

GROUP: Final = "driftscope.causes"
#: Every one is asked about every step and may become a series of /metrics for every run.
MOST_OFFERED: Final = 32
#: As addresses of pages and labels take them.
NAME: Final = re.compile(r"[a-z][a-z0-9_]{2,63}")
#: What no cause may be called: it says that none fits.
RESERVED: Final = frozenset({"unexplained"})
PAGE: Final = re.compile(r"https?://[^\s<>\"]{1,500}")
TEXTS: Final = ("title", "mechanism", "signature", "remedy", "next_control")
MOST_CHARACTERS: Final = 1000  # of a text; ours have 500 at most
#: The answer of every step is stored with them.
MOST_EVIDENCE, MOST_POINTS = 16, 256
_log = logging.getLogger("driftscope")
T = TypeVar("T")


class CauseError(ValueError):
    """A cause, or what its functions return, cannot be taken."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry point that brings no cause."""

    entry: str  # as its package writes it: "NAME = MODULE:VALUE"
    package: str  # with its version
    reason: str

    def __str__(self) -> str:
        return f"no cause is taken from {self.entry} of {self.package}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    causes: tuple[Cause, ...]  # ours first
    by_name: Mapping[str, Cause]
    refused: tuple[Refused, ...]

    def healthy(self, name: str) -> bool:
        return self.by_name[name].healthy


@cache
def catalogue() -> Catalogue:
    """Loaded with the first step of a process, or the first page that names a cause."""
    taken = dict(BY_NAME)
    refused = []
    for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        package = "?" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        try:
            found = _offered(entry, package, taken)
        except CauseError as error:
            refused.append(Refused(f"{entry.name} = {entry.value}", package, str(error)))
            _log.warning("%s", refused[-1])
            continue
        taken |= {cause.name: cause for cause in found}
    return Catalogue(tuple(taken.values()), taken, tuple(refused))


def _offered(entry: EntryPoint, package: str, taken: Mapping[str, Cause]) -> list[Cause]:
    """All that an entry point brings, or CauseError: half of it would be hard to explain."""
    try:
        value = entry.load()
    except (Exception, SystemExit) as error:  # whatever a module of others does on import
        raise CauseError(f"it cannot be loaded: {type(error).__name__}: {error}") from error
    offered = list(value) if isinstance(value, tuple | list) else [value]
    if len(taken) - len(CAUSES) + len(offered) > MOST_OFFERED:
        raise CauseError(f"with it there are more than {MOST_OFFERED} causes of other packages")
    names = set(taken)
    for cause in offered:
        check_cause(cause, names)
        names.add(cause.name)
    return [_guarded(replace(cause, offered_by=package)) for cause in offered]


def check_cause(cause: Any, taken: Iterable[str] = BY_NAME) -> None:
    """Raises CauseError where the catalogue would not take it; for tests of one's own too."""
    if not isinstance(cause, Cause):
        raise CauseError(
            f"it is of type {type(cause).__name__}: offer a {Cause.__module__}.Cause, or a tuple "
            "or list of them"
        )
    if not isinstance(cause.name, str) or not NAME.fullmatch(cause.name):
        raise CauseError(
            f"its name is {cause.name!r:.80}: use 3 to 64 of a-z, 0-9 and _, a letter first"
        )
    if cause.name in RESERVED or cause.name in taken:
        raise CauseError(f"the name {cause.name} is taken: put that of your package before it")
    for name in TEXTS:
        text = getattr(cause, name)
        if not isinstance(text, str) or not 0 < len(text.strip()) <= MOST_CHARACTERS:
            raise CauseError(
                f"{cause.name}: {name} is not a text of 1 to {MOST_CHARACTERS} characters"
            )
    if cause.level not in LEVELS:
        raise CauseError(f"{cause.name}: level {cause.level!r} is not one of {', '.join(LEVELS)}")
    if not callable(cause.detect) or not callable(cause.plot):
        raise CauseError(f"{cause.name}: detect and plot have to be functions of an Examination")
    if cause.healthy:
        raise CauseError(f"{cause.name}: healthy is kept for rounding, which ends an alarm")
    if not isinstance(cause.alike, tuple) or not all(isinstance(one, str) for one in cause.alike):
        raise CauseError(f"{cause.name}: alike is not a tuple of names of causes")
    if cause.page != "" and not (isinstance(cause.page, str) and PAGE.fullmatch(cause.page)):
        raise CauseError(f"{cause.name}: page {cause.page!r:.80} is not an http or https address")


def _guarded(cause: Cause) -> Cause:
    assert cause.detect is not None
    return replace(
        cause,
        detect=_Guard(cause, cause.detect, _checked_finding),
        plot=_Guard(cause, cause.plot, _checked_plot),
    )


@dataclass(frozen=True, slots=True)
class _Guard(Generic[T]):
    """A function of others: what it raises, or returns wrongly, counts as None and is logged."""

    cause: Cause
    function: Callable[[Examination], T | None]
    checked: Callable[[Any], T | None]

    def __call__(self, seen: Examination) -> T | None:
        try:
            return self.checked(self.function(seen))
        except Exception as error:  # whatever a detector of others does
            reason = f"{type(error).__name__}: {error}"
            _say_once(f"{self.cause.name} of {self.cause.offered_by} is not heard: {reason}")
            return None


@cache
def _say_once(text: str) -> None:
    """Not with every step of every run."""
    _log.warning("the cause %s", text)


def _checked_finding(found: Any) -> Finding | None:
    if found is None:
        return None
    if not isinstance(found, Finding):
        raise CauseError(f"detect returned {type(found).__name__}, not a Finding or None")
    if not _is_number(found.confidence) or not 0.0 <= found.confidence <= 1.0:
        raise CauseError(f"the confidence is {found.confidence!r}, not a number from 0 to 1")
    if not isinstance(found.evidence, tuple) or len(found.evidence) > MOST_EVIDENCE:
        raise CauseError(f"the evidence is not a tuple of at most {MOST_EVIDENCE}")
    for item in found.evidence:
        if not isinstance(item, Evidence) or not _is_text(item.what) or not _is_text(item.expected):
            raise CauseError("an item of the evidence is not an Evidence of short texts")
        if not _is_number(item.value) and not _is_text(item.value):
            raise CauseError(f"{item.what!r} has no finite int or float, nor a text, as its value")
    return found


def _checked_plot(plot: Any) -> Plot | None:
    if plot is None:
        return None
    if not isinstance(plot, Plot) or plot.kind not in ("line", "points", "bars"):
        raise CauseError(f"plot returned {type(plot).__name__}, not a Plot of a known kind or None")
    if len(plot.x) != len(plot.y) or len(plot.x) > MOST_POINTS:
        raise CauseError(f"x and y of the plot have to be as long, and {MOST_POINTS} at most")
    if not all(map(_is_number, plot.x)) or not all(y is None or _is_number(y) for y in plot.y):
        raise CauseError("x and y of the plot are not finite numbers of Python")
    if not all(map(_is_text, (plot.title, plot.x_label, plot.y_label))):
        raise CauseError("a text of the plot is missing or too long")
    return plot


def _is_number(value: object) -> bool:
    """As JSON takes it."""
    return isinstance(value, int | float) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS
