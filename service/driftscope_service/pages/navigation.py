"""The navigation that stands on every page. A new page adds its line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Section:
    key: str  # what a page gives as `section`
    label: str
    path: str


SECTIONS: Final[tuple[Section, ...]] = (
    Section("runs", "Runs", "/runs"),
    Section("compare", "Compare", "/compare"),
    Section("probes", "Probes", "/probes"),
    Section("kernels", "Kernels", "/kernels"),
    Section("nightly", "Nights", "/nightly"),
    Section("jobs", "Jobs", "/jobs"),
)


@dataclass(frozen=True, slots=True)
class Crumb:
    """A page above this one."""

    label: str
    path: str
