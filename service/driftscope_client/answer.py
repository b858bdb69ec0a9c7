"""What an answer says of a step's diagnosis, for logs and a trainer's own metrics.

In: the service's answer to a push. Out: StepDiagnosis, or None: a receipt of a shard, or a service
that does not diagnose. Its numbers and words are one flat mapping, for any logger.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: From best to worst, as the service orders them.
VERDICTS = ("bitwise_equal", "at_floor", "above_floor", "bug_like", "not_comparable")
#: That are logged, and alerted, once per change of verdict or cause; the level of the alert, as
#: Trackio names it.
ALERT_LEVELS = {"bug_like": "ERROR", "not_comparable": "WARN"}
LOGGED = tuple(ALERT_LEVELS)

#: Numbers of the comparison that a reader sees first; those of the pages and of `analyze`.
HEADLINE = (
    *("abs_diff_mean", "abs_diff_p99", "kl_k3", "prob_pearson", "ess_ratio_token"),
    "confident_disagreement_share",
)
PREFIX = "driftscope/"
STEP_METRIC, VERDICT_METRIC = f"{PREFIX}step", f"{PREFIX}verdict"
EXCESS_METRIC, CONFIDENCE_METRIC = f"{PREFIX}excess", f"{PREFIX}confidence"
VERDICT_WORD, CAUSE_WORD = f"{PREFIX}verdict_name", f"{PREFIX}cause"
#: Every name that a logger may be given, and what it holds.
NUMBERS: Mapping[str, str] = {
    STEP_METRIC: "the step that all the others are of",
    VERDICT_METRIC: "0 bitwise equal, 1 at the floor, 2 above the floor, 3 bug-like, "
    "4 not comparable",
    EXCESS_METRIC: "noise of the step, times that of the floor",
    CONFIDENCE_METRIC: "of the first cause, 0 to 1",
    f"{PREFIX}abs_diff_mean": "mean |Δ| of a token, in nats",
    f"{PREFIX}abs_diff_p99": "the 99th percentile of |Δ|, in nats",
    f"{PREFIX}kl_k3": "KL(rollout ‖ trainer) by the k3 estimator",
    f"{PREFIX}prob_pearson": "correlation of the probabilities; 1 where they agree",
    f"{PREFIX}ess_ratio_token": "effective sample size of the importance weights, per token",
    f"{PREFIX}confident_disagreement_share": "fraction of tokens that one side holds for certain "
    "and the other does not",
}
WORDS: Mapping[str, str] = {
    VERDICT_WORD: "the verdict",
    CAUSE_WORD: "the first cause; absent where there is none",
}

log = logging.getLogger("driftscope_client")


@dataclass(frozen=True, slots=True)
class StepDiagnosis:
    step: int
    verdict: str
    sentence: str
    excess: float | None  # noise of the step over that of the floor; None where there is none
    cause: str | None  # the first candidate, however sure
    confidence: float | None  # of that cause, 0 to 1
    headline: Mapping[str, float] = field(default_factory=dict)  # of HEADLINE, what is defined

    def metrics(self) -> dict[str, float]:
        """Of NUMBERS, those that the step has: what every trainer's log and tracker takes."""
        found = {STEP_METRIC: float(self.step)}
        if self.verdict in VERDICTS:  # a newer service may know others
            found[VERDICT_METRIC] = float(VERDICTS.index(self.verdict))
        if self.excess is not None:
            found[EXCESS_METRIC] = self.excess
        if self.confidence is not None:
            found[CONFIDENCE_METRIC] = self.confidence
        return found | {f"{PREFIX}{name}": value for name, value in self.headline.items()}

    def words(self) -> dict[str, str]:
        """Of WORDS, those that the step has."""
        cause = {} if self.cause is None else {CAUSE_WORD: self.cause}
        return {VERDICT_WORD: self.verdict, **cause}

    def logged(self) -> dict[str, float | str]:
        """Numbers and words in one mapping, for a logger that takes both."""
        return {**self.metrics(), **self.words()}

    def is_news_after(self, before: StepDiagnosis | None) -> bool:
        """Bad, and otherwise than before."""
        same = before is not None and (before.verdict, before.cause) == (self.verdict, self.cause)
        return self.verdict in LOGGED and not same


def diagnosis_of(answer: Mapping[str, Any]) -> StepDiagnosis | None:
    told = answer.get("diagnosis")
    if not isinstance(told, Mapping):
        return None
    first: Mapping[str, Any] = next(iter(told.get("causes", ())), {})
    return StepDiagnosis(
        step=answer["step"],
        verdict=told["verdict"],
        sentence=told["sentence"],
        excess=told.get("excess"),
        cause=first.get("name"),
        confidence=first.get("confidence"),
        headline=_headline(answer.get("comparison")),
    )


def _headline(comparison: object) -> Mapping[str, float]:
    """What is undefined, such as a correlation of constants, is null in the answer."""
    told = comparison if isinstance(comparison, Mapping) else {}
    numbers = {name: told.get(name) for name in HEADLINE}
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


class LatestDiagnosis:
    """The newest step's, whichever answer comes last; logs when it turns bad or changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: StepDiagnosis | None = None

    @property
    def value(self) -> StepDiagnosis | None:
        return self._latest

    def heard(self, run: str, answer: Mapping[str, Any]) -> StepDiagnosis | None:
        """The answer's own, whichever is the newest."""
        found = diagnosis_of(answer)
        if found is None:
            return None
        with self._lock:
            before = self._latest
            if before is not None and before.step > found.step:
                return found
            self._latest = found
        if found.is_news_after(before):
            log.warning("run %s step %d: %s", run, found.step, found.sentence)
        return found
