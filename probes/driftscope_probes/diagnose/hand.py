"""A plan for the user's own framework: controls best first, and what their outcomes leave.

In: the diagnosis of a step, outcomes that are known, a framework where it is known. Out: HandPlan.
Free of torch: no model is needed, and nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from driftscope_probes.diagnose.investigation import hear_given
from driftscope_probes.diagnose.report import FinalCause, Ranked, Step, final_causes, listed
from driftscope_probes.diagnosis.by_hand.base import READ, Framework
from driftscope_probes.diagnosis.by_hand.registry import BY_HAND, instructions
from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.measurement import Need, Outcome
from driftscope_probes.diagnosis.planner import SURE_FROM, UNEXPLAINED, Planner, prior_of
from driftscope_probes.plural import counted

#: What a step is called whose cause the outcomes have found, as in a report.
EXPLAINED: Final = "explained"
#: A user runs one and comes back; the rest of the list would change with its outcome.
MOST_SHOWN: Final = 6
#: Whoever trains has all of it, or knows that a control is not for them.
EVERY_NEED: Final[frozenset[Need]] = frozenset(get_args(Need))


@dataclass(frozen=True, slots=True)
class HandControl:
    name: str
    title: str
    separates: str
    splits: str  # "splits A 0.3 from B 0.2"
    gain_bits: float
    how: Mapping[str, str]  # by framework; "any": what to do where it has no option
    read: str  # which outcome is clean and which dirty


@dataclass(frozen=True, slots=True)
class HandPlan:
    sentence: str  # of the diagnosis, or what the outcomes make of it
    verdict: str  # of the diagnosis, or EXPLAINED
    steps: list[Step]
    belief: list[Ranked]
    controls: list[HandControl]  # best first
    causes: list[FinalCause]
    ended: str | None  # why there is no next control

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "verdict": self.verdict,
            "steps": [step.to_dict() for step in self.steps],
            "belief": [one.to_dict() for one in self.belief],
            "controls": [asdict(control) for control in self.controls],
            "causes": [cause.to_dict() for cause in self.causes],
            "ended": self.ended,
        }


def hand_plan(
    diagnosis: Diagnosis,
    controls: Sequence[Control],
    outcomes: Mapping[str, Outcome],
    framework: Framework | None = None,
) -> HandPlan:
    planner = Planner(
        [control for control in controls if control.name in BY_HAND],
        prior_of(diagnosis.causes),
        offers=EVERY_NEED,
    )
    steps = hear_given(planner, controls, outcomes)
    ended = None if planner.choose() is not None else planner.ended
    choices = [] if ended else planner.ordered()[:MOST_SHOWN]
    causes = final_causes(planner.belief)
    name, probability = planner.belief.leading
    explained = probability >= SURE_FROM and name != UNEXPLAINED and not catalogue().healthy(name)
    return HandPlan(
        sentence=_after(steps, causes[0], explained) if steps else diagnosis.sentence,
        verdict=EXPLAINED if explained else diagnosis.verdict,
        steps=steps,
        belief=listed(planner.belief),
        controls=[
            HandControl(
                name=choice.control.name,
                title=choice.control.title,
                separates=choice.control.separates,
                splits=choice.splits,
                gain_bits=choice.gain,
                how=instructions(choice.control.name, framework),
                read=READ[BY_HAND[choice.control.name].look],
            )
            for choice in choices
        ],
        causes=causes,
        ended=ended,
    )


def _after(steps: Sequence[Step], first: FinalCause, explained: bool) -> str:
    after = f"after {counted(len(steps), 'outcome')}"
    if explained:
        title = first.title[:1].upper() + first.title[1:]
        return f"{title} ({first.name}, {first.confidence:.2f} {after})."
    return f"Not settled {after}: most likely {first.name} {first.confidence:.2f}."
