"""What `explain` said of planted bugs, and of pairs without one. Free of torch."""

from __future__ import annotations

from typing import Any, Final

from driftscope_kernels.compare_ops.reasons import ROUNDING
from driftscope_probes.record import Record

#: Fractions that have to be reached.
RIGHT_OP: Final = 0.97
RIGHT_REASON: Final = 0.90


class Case(Record):
    """One bug in one live pair, or none."""

    pair: str  # family, dtype and phase
    bug: str | None  # None: a healthy pair
    layer: int | None
    expected_sites: list[str]
    expected_reasons: list[str]
    verdict: str
    first_layer: int | None
    first_site: str | None
    reason: str | None  # of the op at fault
    reasons: list[str]  # of all ops that differ
    gap: float | None  # mean |Δ|, nats
    left: float | None  # with the named ops replaced
    seconds: float

    @property
    def right_op(self) -> bool:
        place = (self.first_layer, self.first_site)
        return any(place == (self.layer, site) for site in self.expected_sites)

    @property
    def right_reason(self) -> bool:
        return self.right_op and self.reason in self.expected_reasons

    @property
    def false_alarm(self) -> bool:
        """Of a healthy pair."""
        return self.verdict == "fault" or not frozenset(self.reasons) <= ROUNDING


class LocalisationReport(Record):
    created_at: str
    seed: int
    cases: list[Case]
    environment: dict[str, Any]
    seconds: float

    @property
    def planted(self) -> list[Case]:
        return [case for case in self.cases if case.bug is not None]

    @property
    def healthy(self) -> list[Case]:
        return [case for case in self.cases if case.bug is None]

    @property
    def right_op(self) -> float:
        return sum(case.right_op for case in self.planted) / max(1, len(self.planted))

    @property
    def right_reason(self) -> float:
        return sum(case.right_reason for case in self.planted) / max(1, len(self.planted))

    @property
    def false_alarms(self) -> int:
        return sum(case.false_alarm for case in self.healthy)

    def shortfalls(self) -> list[str]:
        """Bars that are missed, in words."""
        found = []
        if self.right_op < RIGHT_OP:
            found.append(f"the right op first in {self.right_op:.1%}, {RIGHT_OP:.0%} wanted")
        if self.right_reason < RIGHT_REASON:
            found.append(f"the right reason in {self.right_reason:.1%}, {RIGHT_REASON:.0%} wanted")
        if self.false_alarms:
            found.append(f"{self.false_alarms} healthy pairs with a fault, none wanted")
        return found
