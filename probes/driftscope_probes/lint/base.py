"""Setting, Rule, Finding: what a lint reads, what it knows, and what it says. Free of torch.

In: nothing. Out: the seam between readers (a file, a command line, a server → Settings), rules
(Settings → findings) and those who show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

Scalar = bool | int | float | str
#: error: the two sides cannot agree; warning: they differ in cases that are common; note: worth
#: knowing when numbers are read.
Severity = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value under its canonical name, and where the user can change it."""

    name: str  # of names.NAMES: "engine.dtype", whatever the source calls it
    value: Scalar
    where: str  # "recipe.yaml: actor_rollout_ref.rollout.dtype"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that is known of one set-up. Of two values under one name the later one holds."""

    known: tuple[Setting, ...] = ()

    def get(self, name: str) -> Setting | None:
        return next((one for one in reversed(self.known) if one.name == name), None)

    def value(self, name: str) -> Scalar | None:
        found = self.get(name)
        return None if found is None else found.value

    def has_side(self, side: str) -> bool:
        """Whether anything is known of "engine", "trainer", "model", …"""
        return any(one.name.partition(".")[0] == side for one in self.known)

    def __add__(self, other: Settings) -> Settings:
        return Settings(self.known + other.known)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self.known)


class Condition(Protocol):
    def __call__(self, settings: Settings) -> Setting | None:
        """The setting that meets it; None: it does not hold, or nothing is known of it."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """Something known to go wrong, as data. All conditions must hold; the first is named."""

    name: str  # lower case with hyphens, for --json and for people who silence it
    severity: Severity
    when: tuple[Condition, ...]
    why: str  # a sentence: what happens
    remedy: str  # a sentence: what to change, and to what
    source: str  # public thread, documentation or source file it is known from
    cause: str | None = None  # name of the catalogue of causes that it would lead to


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    severity: Severity
    where: str
    value: Scalar
    why: str
    remedy: str
    source: str
    cause: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "where": self.where,
            "value": self.value,
            "why": self.why,
            "remedy": self.remedy,
            "source": self.source,
            "cause": self.cause,
        }


def lint(settings: Settings, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Most severe first, else in the order of the rules."""
    found = [finding for rule in rules if (finding := _found(rule, settings)) is not None]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _found(rule: Rule, settings: Settings) -> Finding | None:
    met = [condition(settings) for condition in rule.when]
    blamed = met[0]
    if blamed is None or any(one is None for one in met):
        return None
    return Finding(
        rule.name,
        rule.severity,
        blamed.where,
        blamed.value,
        rule.why,
        rule.remedy,
        rule.source,
        rule.cause,
    )
