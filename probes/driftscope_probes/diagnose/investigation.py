"""Investigation: the loop of plan, run, update, with every step told as it happens. Free of torch.

In: a bench, a planner and the outcomes that are known already. Out: the steps. One control that
fails costs itself, not the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_probes.diagnose.report import Step, listed
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised, Outcome
from driftscope_probes.diagnosis.planner import Belief, Planner
from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.progress import ProgressSink, Told

#: Why an outcome that the user brought stands among the steps.
GIVEN: Final = "its outcome was given"
#: Controls begin at this fraction of the whole job: before it lie models, engine and the first gap.
BEGIN, END = 0.3, 0.97


@dataclass(frozen=True, slots=True)
class Clock:
    now: Callable[[], float]  # seconds
    started: float

    @property
    def spent_s(self) -> float:
        return self.now() - self.started


def hear_given(
    planner: Planner, controls: Sequence[Control], outcomes: Mapping[str, Outcome]
) -> list[Step]:
    """What was run elsewhere goes first, whether or not it could be run here."""
    steps = []
    for control in controls:
        if control.name in outcomes:
            planner.heard(control, outcomes[control.name])
            steps.append(_step(control, GIVEN, outcomes[control.name], planner.belief))
    return steps


def investigate(bench: Bench, planner: Planner, clock: Clock, told: ProgressSink) -> list[Step]:
    """Until one cause is left, nothing is worth running or the budget ends: `planner.ended`."""
    steps: list[Step] = []
    reached = BEGIN
    while (choice := planner.choose(clock.spent_s)) is not None:
        control = choice.control
        reached = max(reached, _fraction(planner, clock))  # a surprise makes less certain
        told(Told(control.title, reached, choice.splits, {"why": choice.reason}))
        before = clock.now()
        found = attempt(control, bench)
        if isinstance(found, str):
            planner.set_aside(control, found)
            told(Told(control.title, reached, found, {"found": found}))
            continue
        took = clock.now() - before
        planner.heard(control, found.outcome, took)
        step = _step(control, choice.reason, found.outcome, planner.belief, found, took)
        steps.append(step)
        reached = max(reached, _fraction(planner, clock))
        told(Told(control.title, reached, step.outcome, {"found": step.sentence}))
    return steps


def attempt(control: Control, bench: Bench) -> Measurement | str:
    """A text: why there is no outcome. What fails costs itself, not the rest."""
    try:
        return control.run(bench)
    except Cancelled:
        raise
    except NotExercised as error:
        return f"it did not happen here: {error.message}"
    except ProbeError as error:
        return f"it failed: {error.message}"


def _step(
    control: Control,
    reason: str,
    outcome: Outcome,
    belief: Belief,
    found: Measurement | None = None,
    seconds: float | None = None,
) -> Step:
    return Step(
        control=control.name,
        title=control.title,
        reason=reason,
        outcome=outcome,
        what=None if found is None else found.what,
        value=None if found is None else found.value,
        expected=None if found is None else found.expected,
        evidence=[] if found is None else [item.to_dict() for item in found.evidence],
        seconds=seconds,
        belief=listed(belief),
    )


def _fraction(planner: Planner, clock: Clock) -> float:
    """Of the whole job: time says how much is left at most, certainty how much at least."""
    certain = planner.belief.leading[1]
    done = max(clock.spent_s / planner.budget_s, certain)
    return BEGIN + (END - BEGIN) * min(1.0, done)
