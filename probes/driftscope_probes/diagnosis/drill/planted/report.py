"""The typed report of a drill on controls, and what is recorded of it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from driftscope_probes.diagnosis.controls.registry import BY_NAME, CONTROLS
from driftscope_probes.diagnosis.families.registry import BY_NAME as CAUSES
from driftscope_probes.record import Record

#: A control has to speak for a cause whose probability of the positive outcome is at least this.
OWN_FROM: Final = 0.85
#: Of 20 causes one may be missed.
RIGHT_AT_LEAST: Final = 0.95
HEALTHY: Final = "healthy"
ORDERS: Final = ("planner", "fixed_order", "cases")


class ControlRun(Record):
    """One control on one pair."""

    control: str
    outcome: str  # clean, dirty, or why there is none
    what: str | None
    value: float | None
    expected: str | None
    seconds: float
    asked_by: str  # planner, fixed_order, own: the cause's control, healthy

    @property
    def positive(self) -> bool:
        return self.outcome == BY_NAME[self.control].positive

    @property
    def exercised(self) -> bool:
        return self.outcome in ("clean", "dirty")


class CaseRun(Record):
    """One planted system or healthy pair."""

    cause: str  # or healthy
    what: str  # was planted
    alike: str
    model: str
    dtypes: str
    seed: int
    data_verdict: str
    data_causes: list[list[Any]]  # [name, confidence], most likely first
    sigma: float
    floor: float
    answer: str | None  # None: healthy pairs are not asked about
    confidence: float | None
    ended: str | None
    runs: list[ControlRun]
    planner_controls: int
    own: list[str]  # controls that must speak up
    fixed_controls: int | None  # None: not run
    seconds: float  # until the answer, engine and trainer started
    error: str | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (f"{self.cause}: {self.what}", self.model, self.dtypes, self.seed)

    @property
    def right(self) -> bool:
        """The likeliest cause in the end is the one that was planted."""
        return self.answer == self.cause


class ControlsReport(Record):
    cases: list[CaseRun]
    request: dict[str, Any]
    environment: dict[str, Any]
    seconds: float

    @property
    def planted(self) -> list[CaseRun]:
        return [case for case in self.cases if case.cause != HEALTHY]

    @property
    def healthy(self) -> list[CaseRun]:
        return [case for case in self.cases if case.cause == HEALTHY]

    @property
    def right(self) -> float | None:
        """Fraction of planted systems whose cause was the answer."""
        planted = self.planted
        return sum(case.right for case in planted) / len(planted) if planted else None

    @property
    def fewer(self) -> tuple[int, int, int] | None:
        """Where both orders were run: controls of the planner, of the fixed order, cases."""
        both = [case for case in self.planted if case.fixed_controls is not None]
        if not both:
            return None
        fixed = sum(case.fixed_controls or 0 for case in both)
        return sum(case.planner_controls for case in both), fixed, len(both)

    def joined(self, later: ControlsReport) -> ControlsReport:
        """Both reports' cases; one that was run again replaces the one before."""
        cases = {case.key: case for case in (*self.cases, *later.cases)}
        return ControlsReport(
            cases=list(cases.values()),
            request=later.request,
            environment=later.environment,
            seconds=round(self.seconds + later.seconds, 1),
        )

    def to_keep(self) -> ControlsReport:
        """Without runs that had no outcome: what a page and its tests read."""
        cases = [
            case.model_copy(update={"runs": [run for run in case.runs if run.exercised]})
            for case in self.cases
        ]
        return self.model_copy(update={"cases": cases})

    def summary(self) -> dict[str, Any]:
        return {
            "planted": len(self.planted),
            "right": self.right,
            "controls": None if self.fewer is None else dict(zip(ORDERS, self.fewer, strict=True)),
            "most_seconds": max((case.seconds for case in self.planted), default=None),
            "healthy": len(self.healthy),
            "matrix": [row.to_dict() for row in matrix(self.cases)],
            "shortfalls": self.shortfalls(),
        }

    def shortfalls(self) -> list[str]:
        found = []
        if self.right is not None and self.right < RIGHT_AT_LEAST:
            found.append(f"right cause: {self.right:.1%}, at least {RIGHT_AT_LEAST:.0%} is asked")
        for row in matrix(self.cases):
            if row.planted and row.caught < row.planted:
                found.append(f"{row.control} caught {row.caught} of {row.planted} of its faults")
            if row.false:
                found.append(
                    f"{row.control} spoke up on {row.false} of {row.healthy} healthy pairs"
                )
        return found


#: They speak up for rounding, which is what a healthy pair has.
OF_ROUNDING: Final = frozenset(
    control.name
    for control in CONTROLS
    for cause, weight in control.points_to.items()
    if weight >= OWN_FROM and CAUSES[cause].healthy
)


class MatrixRow(Record):
    """A control against its own planted faults, and against healthy pairs."""

    control: str
    planted: int
    caught: int
    missed: list[str]  # causes
    others: int  # runs on faults that are not its own
    spoke: int  # of those, with the positive outcome
    healthy: int
    false: int
    seconds: float | None  # median


def own_controls(cause: str) -> list[str]:
    """Controls that have to speak up where this is the cause."""
    return [one.name for one in CONTROLS if one.points_to.get(cause, 0.0) >= OWN_FROM]


def matrix(cases: Sequence[CaseRun]) -> list[MatrixRow]:
    return [_row(control.name, cases) for control in CONTROLS]


def _row(name: str, cases: Iterable[CaseRun]) -> MatrixRow:
    control = BY_NAME[name]
    own: list[tuple[str, bool]] = []
    others: list[bool] = []
    healthy: list[bool] = []
    seconds: list[float] = []
    for case in cases:
        for run in case.runs:
            if run.control != name or not run.exercised:
                continue
            seconds.append(run.seconds)
            weight = control.points_to.get(case.cause, 0.0)
            if case.cause == HEALTHY:
                healthy.append(run.positive and name not in OF_ROUNDING)
            elif name in case.own:
                own.append((case.cause, run.positive))
            elif weight <= control.otherwise:
                others.append(run.positive)
    return MatrixRow(
        control=name,
        planted=len(own),
        caught=sum(positive for _, positive in own),
        missed=[cause for cause, positive in own if not positive],
        others=len(others),
        spoke=sum(others),
        healthy=len(healthy),
        false=sum(healthy),
        seconds=sorted(seconds)[len(seconds) // 2] if seconds else None,
    )
