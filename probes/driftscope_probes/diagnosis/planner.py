"""Planner: which control to run next, and what its outcome does to the causes. Free of torch.

In: the causes that the data rank, and the controls at hand. Out: a belief over the catalogue, the
control that separates most per second with the reason for it, and why there is no next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import NAMED_FROM, NamedCause
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.measurement import Need, Outcome

#: The remainder of a belief: a cause that the catalogue does not have.
UNEXPLAINED: Final = "unexplained"
#: A cause so likely is the answer. A control errs in 1 of 100 (LEAST_LIKELIHOOD): two that agree
#: pass this, one alone only where the data named the cause already.
SURE_FROM: Final = 0.95
#: Prior of a cause that the data do not name. Times the 60 of the catalogue it leaves the data
#: 0.6 at most, so that no data are believed before a control has spoken; and two controls that
#: point to another cause take that above 0.9, however sure the data were.
LEAST_PRIOR: Final = 0.01
#: What is left to UNEXPLAINED and to the catalogue where the data's causes share everything.
LEAST_REST: Final = 0.04
#: Of what the data leave, the part that goes to the causes of the catalogue, in equal shares. Half
#: left UNEXPLAINED in front of the cause that its one control had named in 9 of 26 planted systems
#: (`driftscope drill --controls --models tiny-llama --seed 0`, on which it was tuned).
REST_OF_CATALOGUE: Final = 0.9
#: What the causes that look alike in one step have at least, together, as a fraction of the named
#: one: data share it among those that they see, and a control must be able to find another.
ALIKE_FRACTION: Final = 0.5
#: A control that is expected to tell less than this is not worth a run: on the same systems 0.02
#: took one more control on average and named no more causes.
LEAST_GAIN_BITS: Final = 0.05
#: While no cause of the catalogue is the likelier answer, a little is worth a run too: the one
#: control that a rare cause has tells less than LEAST_GAIN_BITS until the common ones are out.
LEAST_GAIN_UNNAMED_BITS: Final = 0.005
#: Nothing is free: keeps a control that answers from what was kept from dividing by zero.
LEAST_COST_S: Final = 0.5
OUTCOMES: Final[tuple[Outcome, ...]] = ("clean", "dirty")
#: Why a plan ended.
Ended = Literal["sure", "nothing_left", "budget"]
#: What a control lacks, in words.
LACKS: Final[Mapping[Need, str]] = {
    "other_launches": "an engine that may be started anew; the server is somebody else's",
    "recorded": "a recorded step whose prompts are known (prompt_token_ids)",
    "older_models": "checkpoints of earlier steps (--older-model)",
    "adapter": "a LoRA adapter (--adapter)",
    "other_weights": "a trainer model other than the engine's (--trainer-model)",
    "mixture_of_experts": "a mixture of experts",
    "threads": "more than one thread",
}


@dataclass(frozen=True)
class Belief:
    """Probability of every cause of the catalogue and of UNEXPLAINED; they sum to 1."""

    probabilities: Mapping[str, float]

    @cached_property
    def ranked(self) -> tuple[tuple[str, float], ...]:
        """Most likely first."""
        found = sorted(self.probabilities.items(), key=lambda one: (-one[1], one[0]))
        return tuple(found)

    @property
    def leading(self) -> tuple[str, float]:
        return self.ranked[0]

    @cached_property
    def entropy(self) -> float:
        """Bits."""
        return -sum(p * math.log2(p) for p in self.probabilities.values() if p > 0)

    def probability(self, control: Control, outcome: Outcome) -> float:
        """Of the outcome, before the control is run."""
        return sum(p * control.likelihood(outcome, c) for c, p in self.probabilities.items())

    def updated(self, control: Control, outcome: Outcome) -> Belief:
        """Bayes: outcomes are taken as independent where the cause is given."""
        joint = {c: p * control.likelihood(outcome, c) for c, p in self.probabilities.items()}
        return _normalised(joint)

    def gain(self, control: Control) -> float:
        """Bits that the control is expected to tell."""
        after = sum(
            self.probability(control, outcome) * self.updated(control, outcome).entropy
            for outcome in OUTCOMES
        )
        return max(0.0, self.entropy - after)


def prior_of(causes: Iterable[NamedCause]) -> Belief:
    """What data say, with room for every cause that looks alike and for those they cannot show."""
    known = catalogue().by_name
    named = {cause.name: cause.confidence for cause in causes if cause.name in known}
    rest = max(1.0 - sum(named.values()), LEAST_REST)
    least = max(LEAST_PRIOR, REST_OF_CATALOGUE * rest / len(known))
    weights = dict.fromkeys(known, least) | named
    for name, confidence in named.items():
        alike = [other for other in known[name].alike if other in weights and other != name]
        for other in alike:
            weights[other] = max(weights[other], ALIKE_FRACTION * confidence / len(alike))
    weights[UNEXPLAINED] = (1.0 - REST_OF_CATALOGUE) * rest
    return _normalised(weights)


def _normalised(weights: Mapping[str, float]) -> Belief:
    total = math.fsum(weights.values())
    return Belief({name: weight / total for name, weight in weights.items()})


@dataclass(frozen=True, slots=True)
class Choice:
    control: Control
    gain: float  # bits
    seconds: float  # expected
    splits: str  # "splits stale_prefix_cache 0.31 from prefill_vs_decode_kernel 0.28"

    @property
    def reason(self) -> str:
        return f"{self.control.title}: {self.seconds:.2g} s; {self.splits}"


@dataclass(frozen=True, slots=True)
class Skipped:
    control: str
    reason: str


class Planner:
    """Give each outcome to `heard`, or `set_aside` what gave none, before the next `choose`."""

    def __init__(
        self,
        controls: Sequence[Control],
        belief: Belief,
        *,
        offers: frozenset[Need],
        budget_s: float = math.inf,
    ) -> None:
        """`offers`: what is at hand of that which controls need."""
        self.belief, self.budget_s = belief, budget_s
        self.ended: Ended | None = None
        self._skipped: list[Skipped] = []
        self._lacking: list[tuple[Control, Skipped]] = []
        self._left: dict[str, Control] = {}
        for control in controls:
            lacking = sorted(control.needs - offers)
            if lacking:
                words = ", ".join(LACKS[need] for need in lacking)
                skipped = Skipped(control.name, f"it needs {words}")
                self._skipped.append(skipped)
                self._lacking.append((control, skipped))
            else:
                self._left[control.name] = control
        self._expected_s = self._took_s = 0.0

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return tuple(self._skipped)

    @property
    def would_tell(self) -> list[Skipped]:
        """What would tell more if it could be run, best first."""
        gains = [(self.belief.gain(control), skipped) for control, skipped in self._lacking]
        worth = [(gain, skipped) for gain, skipped in gains if gain >= LEAST_GAIN_BITS]
        return [skipped for _, skipped in sorted(worth, key=lambda one: -one[0])]

    @property
    def left(self) -> tuple[Control, ...]:
        return tuple(self._left.values())

    @property
    def pace(self) -> float:
        """Seconds that controls take here for each that they take with a tiny model."""
        return self._took_s / self._expected_s if self._took_s and self._expected_s else 1.0

    def ordered(self) -> list[Choice]:
        """What is worth running, best first; equals in the order of the registry."""
        choices = [self._choice(control) for control in self._left.values()]
        worth = [choice for choice in choices if choice.gain >= self._least_gain]
        return sorted(worth, key=lambda choice: -choice.gain / choice.seconds)

    @property
    def _least_gain(self) -> float:
        cause, probability = self.belief.leading
        named = cause != UNEXPLAINED and probability >= NAMED_FROM
        return LEAST_GAIN_BITS if named else LEAST_GAIN_UNNAMED_BITS

    def choose(self, spent_s: float = 0.0) -> Choice | None:
        """None: `ended` says why. A control that was begun within the budget may end beyond it."""
        self.ended = None
        if self.belief.leading[1] >= SURE_FROM:
            self.ended = "sure"
        elif spent_s >= self.budget_s:
            self.ended = "budget"
        else:
            choices = self.ordered()
            if choices:
                return choices[0]
            self.ended = "nothing_left"
        return None

    def heard(self, control: Control, outcome: Outcome, seconds: float | None = None) -> None:
        """`seconds`: that it took; None where it was run elsewhere."""
        self._left.pop(control.name, None)
        self.belief = self.belief.updated(control, outcome)
        if seconds is not None:
            self._expected_s += max(control.cost_s, LEAST_COST_S)
            self._took_s += seconds

    def set_aside(self, control: Control, reason: str) -> None:
        self._left.pop(control.name, None)
        self._skipped.append(Skipped(control.name, reason))

    def _choice(self, control: Control) -> Choice:
        seconds = max(control.cost_s, LEAST_COST_S) * self.pace
        return Choice(control, self.belief.gain(control), seconds, _splits(self.belief, control))


def _splits(belief: Belief, control: Control) -> str:
    """The likeliest cause that gives the positive outcome, and the likeliest that does not."""
    of = belief.probabilities
    positive = {cause: control.likelihood(control.positive, cause) for cause in of}
    one = max(of, key=lambda cause: of[cause] * positive[cause])
    other = max(
        (cause for cause in of if cause != one), key=lambda cause: of[cause] * (1 - positive[cause])
    )
    return f"splits {one} {of[one]:.2g} from {other} {of[other]:.2g}"
