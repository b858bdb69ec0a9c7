"""Cause: one row of the catalogue, with the detector that looks for it.

In: nothing. Out: the seam between a diagnosis and the families of causes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from driftscope_probes.diagnosis.cause import Finding, Plot
from driftscope_probes.diagnosis.examination import Examination

#: The order of reasoning: what stands earlier explains what later tests see.
Level = Literal["comparable", "alignment", "semantics", "context", "weights", "arithmetic"]
LEVELS: tuple[Level, ...] = (
    "comparable",
    "alignment",
    "semantics",
    "context",
    "weights",
    "arithmetic",
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One row of the catalogue: ours, or of another package (docs/add-a-cause.md)."""

    name: str  # as in the catalogue of the field
    title: str  # a sentence without its full stop: what went wrong
    level: Level
    mechanism: str  # how it comes about, one or two sentences
    signature: str  # what the data look like
    remedy: str  # what to change
    next_control: str  # the cheapest run that would settle it
    detect: (
        Callable[[Examination], Finding | None] | None
    )  # None: told by steps of a run or controls only
    plot: Callable[[Examination], Plot | None]  # the one picture of its evidence
    healthy: bool = False  # rounding as it should be
    #: Faults that look alike in one step share their probability, and name the control.
    alike: tuple[str, ...] = ()
    page: str = ""  # address of a page about it, of a cause that is not ours
    offered_by: str = ""  # package and version; "": ours. The catalogue fills it in

    @property
    def doc(self) -> str:
        """Where more is said of it."""
        if self.offered_by:
            return self.page or f"package {self.offered_by}"
        return f"docs/causes/{self.name}.md"
