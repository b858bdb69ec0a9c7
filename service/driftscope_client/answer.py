"""What an answer says of a step's diagnosis, for logs and a trainer's own metrics.

In: the service's answer to a push. Out: StepDiagnosis, or None: a receipt of a shard, or a service
that does not diagnose.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: From best to worst, as the service orders them.
VERDICTS = ("bitwise_equal", "at_floor", "above_floor", "bug_like", "not_comparable")
#: That are logged, once per change of verdict or cause.
LOGGED = ("bug_like", "not_comparable")
VERDICT_METRIC, EXCESS_METRIC = "driftscope/verdict", "driftscope/excess"

log = logging.getLogger("driftscope_client")


@dataclass(frozen=True, slots=True)
class StepDiagnosis:
    step: int
    verdict: str
    sentence: str
    excess: float | None  # noise of the step over that of the floor; None where there is none
    cause: str | None  # the first candidate, however sure
    confidence: float | None  # of that cause, 0 to 1

    def metrics(self) -> dict[str, float]:
        """`driftscope/verdict`: 0 bitwise equal to 3 bug-like, 4 not comparable."""
        found = {}
        if self.verdict in VERDICTS:  # a newer service may know others
            found[VERDICT_METRIC] = float(VERDICTS.index(self.verdict))
        if self.excess is not None:
            found[EXCESS_METRIC] = self.excess
        return found


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
    )


class LatestDiagnosis:
    """The newest step's, whichever answer comes last; logs when it turns bad or changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: StepDiagnosis | None = None

    @property
    def value(self) -> StepDiagnosis | None:
        return self._latest

    def heard(self, run: str, answer: Mapping[str, Any]) -> None:
        found = diagnosis_of(answer)
        if found is None:
            return
        with self._lock:
            before = self._latest
            if before is not None and before.step > found.step:
                return
            self._latest = found
        same = before is not None and (before.verdict, before.cause) == (found.verdict, found.cause)
        if found.verdict in LOGGED and not same:
            log.warning("run %s step %d: %s", run, found.step, found.sentence)
