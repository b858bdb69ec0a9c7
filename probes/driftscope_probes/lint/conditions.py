"""Conditions of rules: small, frozen, and told by their own words.

In: Settings. Out: the setting that meets a condition, or None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from driftscope_probes.lint.base import Condition, Scalar, Setting, Settings


@dataclass(frozen=True, slots=True)
class OneOf:
    name: str
    values: tuple[Scalar, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        # 1 == True in Python, but top_k 1 is no switch that is on.
        same = found is not None and any(
            found.value == value and isinstance(found.value, bool) == isinstance(value, bool)
            for value in self.values
        )
        return found if same else None


def equals(name: str, value: Scalar) -> OneOf:
    return OneOf(name, (value,))


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers above `low` and below `high`, both left out; None: no limit on that side."""

    name: str
    low: float | None = None
    high: float | None = None

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        if found is None or isinstance(found.value, bool | str):
            return None
        above = self.low is None or found.value > self.low
        below = self.high is None or found.value < self.high
        return found if above and below else None


@dataclass(frozen=True, slots=True)
class Other:
    """Known, and none of `values`."""

    name: str
    values: tuple[Scalar, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        return None if found is None or found.value in self.values else found


@dataclass(frozen=True, slots=True)
class Unlike:
    """Both known, and different."""

    name: str
    other: str

    def __call__(self, settings: Settings) -> Setting | None:
        found, other = settings.get(self.name), settings.get(self.other)
        if found is None or other is None or found.value == other.value:
            return None
        return Setting(found.name, f"{found.value} beside {other.value}", found.where)


@dataclass(frozen=True, slots=True)
class Unset:
    """Nothing is said of it, where something is known of its side; never the first condition."""

    name: str

    def __call__(self, settings: Settings) -> Setting | None:
        side = self.name.partition(".")[0]
        if settings.get(self.name) is not None or not settings.has_side(side):
            return None
        return Setting(self.name, "not set", self.name)


@dataclass(frozen=True, slots=True)
class Contains:
    """A text with one of `parts` in it, whatever the case."""

    name: str
    parts: tuple[str, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        if found is None or not isinstance(found.value, str):
            return None
        return found if any(part in found.value.lower() for part in self.parts) else None


@dataclass(frozen=True, slots=True)
class Either:
    conditions: tuple[Condition, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        return next((met for one in self.conditions if (met := one(settings)) is not None), None)


@dataclass(frozen=True, slots=True)
class Known:
    name: str

    def __call__(self, settings: Settings) -> Setting | None:
        return settings.get(self.name)


@dataclass(frozen=True, slots=True)
class Unsaid:
    """Nothing is said of it, whatever else is known; never the first condition."""

    name: str

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        return Setting(self.name, "not set", self.name) if found is None else None


@dataclass(frozen=True, slots=True)
class Unless:
    """`condition` does not hold, known or not; never the first condition."""

    condition: Condition

    def __call__(self, settings: Settings) -> Setting | None:
        return None if self.condition(settings) is not None else Setting("", "not so", "")


@dataclass(frozen=True, slots=True)
class MoreThan:
    """Both are numbers, and the first is the larger."""

    name: str
    other: str

    def __call__(self, settings: Settings) -> Setting | None:
        found, other = settings.get(self.name), settings.value(self.other)
        if found is None or isinstance(found.value, str) or isinstance(other, str | None):
            return None
        return found if found.value > other else None


@dataclass(frozen=True, slots=True)
class Apart:
    """Two lists of ids ("1,2") with none in common."""

    name: str
    other: str

    def __call__(self, settings: Settings) -> Setting | None:
        found, other = settings.get(self.name), settings.get(self.other)
        if found is None or other is None:
            return None
        shared = set(str(found.value).split(",")) & set(str(other.value).split(","))
        value = f"{found.value} beside {other.value}"
        return None if shared else Setting(found.name, value, found.where)


@dataclass(frozen=True, slots=True)
class Before:
    """A version earlier than `version`: the numbers at its start count, "0.32.1+cpu" is 0.32.1."""

    name: str
    version: tuple[int, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        parts = None if found is None else _version(str(found.value))
        return found if parts is not None and parts < self.version else None


@dataclass(frozen=True, slots=True)
class Since:
    """That version or a later one."""

    name: str
    version: tuple[int, ...]

    def __call__(self, settings: Settings) -> Setting | None:
        found = settings.get(self.name)
        parts = None if found is None else _version(str(found.value))
        return found if parts is not None and parts >= self.version else None


def _version(written: str) -> tuple[int, ...] | None:
    """None for what starts with no number ("latest", "nightly")."""
    match = re.match(r"v?(\d{1,5}(?:\.\d{1,5}){0,3})", written.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else None
