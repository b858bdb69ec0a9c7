"""The report of a diagnosis by controls: what was run and why, and what is left. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from driftscope_probes.diagnose.request import DiagnoseRequest
from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.controls.sides import Gap as Measured
from driftscope_probes.diagnosis.planner import SURE_FROM, UNEXPLAINED, Belief
from driftscope_probes.record import Record

#: How many causes a step and the end of a report list.
MOST_LISTED: Final = 5
#: A second cause this likely is said beside the first.
RIVAL_FROM: Final = 0.2
#: Verdicts on a step's data that leave nothing to explain.
FINE: Final = frozenset({"bitwise_equal", "at_floor"})
#: `not_reproduced`: the step's fault is not in the pair that runs here.
Verdict = Literal["at_floor", "explained", "unexplained", "not_reproduced"]
VERDICTS: Final[dict[str, str]] = {
    "at_floor": "at the floor",
    "explained": "explained",
    "unexplained": "not settled",
    "not_reproduced": "not reproduced here",
}
ENDED: Final[dict[str, str]] = {
    "sure": f"one cause has at least {SURE_FROM:.0%}",
    "nothing_left": "no control is left that would tell more",
    "budget": "the budget is used up",
    "at_floor": "there is nothing to explain",
}


class Ranked(Record):
    """A cause with its probability."""

    cause: str
    probability: float


class Gap(Record):
    """Between the two sides' values of the same tokens."""

    tokens: int
    abs_mean: float  # nats
    largest: float  # nats
    sigma: float  # nats on the logits
    equal: float  # fraction of equal bits


class Step(Record):
    """A control that was run, or whose outcome was given."""

    control: str
    title: str
    reason: str  # why this one next, a sentence
    outcome: str  # clean or dirty
    what: str | None  # what was measured; None: it was run elsewhere
    value: float | None
    expected: str | None
    evidence: list[dict[str, Any]]
    seconds: float | None
    belief: list[Ranked]  # after it, most likely first

    @property
    def sentence(self) -> str:
        """What came of it."""
        first = self.belief[0]
        measured = "" if self.what is None else f": {self.what} {self.value:.3g} ({self.expected})"
        return f"{self.outcome}{measured}; {first.cause} {first.probability:.2f}"


class SkippedControl(Record):
    control: str
    reason: str


class FinalCause(Record):
    name: str
    title: str
    confidence: float
    remedy: str
    doc: str


class Source(Record):
    """The step that the question came from."""

    file: str | None = None
    run: str | None = None
    step: int | None = None

    @property
    def words(self) -> str:
        return f"{self.run} step {self.step}" if self.run is not None else str(self.file)


class DiagnoseReport(Record):
    schema_version: str
    kind: Literal["diagnose"]
    created_at: str
    model: dict[str, Any]
    request: DiagnoseRequest
    source: Source | None  # None: the live pair itself
    sentence: str
    verdict: str
    ended: str
    base: Gap  # of the live pair
    floor: dict[str, Any]
    recorded: dict[str, Any] | None  # what the data of the step said by themselves
    prior: list[Ranked]
    steps: list[Step]
    skipped: list[SkippedControl]
    causes: list[FinalCause]
    side: str | None  # which side errs, a sentence
    remedy: str | None
    notes: list[str]
    environment: dict[str, Any]
    lint: dict[str, Any] | None = None  # a LintReport; None: of before there was one
    timing: dict[str, float]


def listed(belief: Belief, most: int = MOST_LISTED) -> list[Ranked]:
    return [Ranked(cause=name, probability=p) for name, p in belief.ranked[:most]]


def gap_record(gap: Measured) -> Gap:
    return Gap(
        tokens=gap.tokens,
        abs_mean=gap.abs_mean,
        largest=gap.largest,
        sigma=gap.sigma,
        equal=gap.equal,
    )


def final_causes(belief: Belief) -> list[FinalCause]:
    return [_final(name, p) for name, p in belief.ranked[:MOST_LISTED]]


def _final(name: str, probability: float) -> FinalCause:
    if name == UNEXPLAINED:
        return FinalCause(
            name=name,
            title="A cause that the catalogue does not have",
            confidence=probability,
            remedy="Look at the op where the two sides part: compare them layer by layer.",
            doc="docs/diagnose.md",
        )
    cause = catalogue().by_name[name]
    return FinalCause(
        name=name,
        title=cause.title,
        confidence=probability,
        remedy=cause.remedy,
        doc=cause.doc,
    )


def sentence_of(
    verdict: Verdict, steps: Sequence[Step], belief: Belief, base: Gap, floor_sigma: float
) -> str:
    """The whole answer, said first everywhere."""
    times = f"{base.sigma / floor_sigma:.2g} times the floor"
    ran = len(steps)
    after = f"after {ran} control{'' if ran == 1 else 's'}"
    name, probability = belief.leading
    if verdict == "at_floor":
        return f"The live pair is at the floor ({times}): there is nothing to explain."
    if verdict == "not_reproduced":
        return (
            f"The step's difference does not reproduce here: the live pair is at the floor "
            f"({times}). Of the causes, {name} {probability:.2f} is the likeliest."
        )
    if verdict == "explained":
        title = _final(name, probability).title
        said = title[:1].upper() + title[1:]
        return f"{said} ({name}, {probability:.2f} {after}); the difference is {times}."
    second, beside = belief.ranked[1]
    rival = f" or {second} {beside:.2f}" if beside >= RIVAL_FROM else ""
    return (
        f"Not settled {after}: most likely {name} {probability:.2f}{rival}; the difference is "
        f"{times}."
    )
