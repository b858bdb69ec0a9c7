"""Control: one run that separates causes, and what it measured. Free of torch.

In: a Bench. Out: the seam between the planner and the controls, one file per control.

A control changes one thing. What it answers is `clean` or `dirty`: clean means that the difference
is gone with the change, or that two runs which must agree do agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, Need, Outcome

#: A control errs now and then: no outcome rules a cause out for good. Measured on healthy pairs:
#: docs/controls.md.
LEAST_LIKELIHOOD = 0.01


@dataclass(frozen=True, slots=True)
class Control:
    name: str  # as in `--control NAME=clean`
    title: str  # what is done: "Turn the prefix cache off"
    separates: str  # a sentence: which causes it tells from which
    null: str  # what healthy pairs show, with the figure that was measured
    cost_s: float  # seconds on two cores with a tiny model, beyond what earlier controls have kept
    positive: Outcome  # the outcome that speaks for the causes in `points_to`
    #: Cause → probability of the positive outcome, where that is the cause.
    points_to: Mapping[str, float]
    run: Callable[[Bench], Measurement]  # raises ProbeError, NotExercised
    otherwise: float = LEAST_LIKELIHOOD  # probability of the positive outcome under other causes
    needs: frozenset[Need] = field(default=frozenset())

    def likelihood(self, outcome: Outcome, cause: str) -> float:
        """P(outcome | cause), between LEAST_LIKELIHOOD and 1 − LEAST_LIKELIHOOD."""
        positive = self.points_to.get(cause, self.otherwise)
        value = positive if outcome == self.positive else 1.0 - positive
        return min(max(value, LEAST_LIKELIHOOD), 1.0 - LEAST_LIKELIHOOD)
