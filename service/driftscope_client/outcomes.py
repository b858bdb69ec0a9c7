"""What became of every push: each ends in exactly one counter, with its reason.

In: pushes as they begin and end, from several threads. Out: counts, and the last lines of a run.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

from driftscope_client.errors import DriftscopeError
from driftscope_client.transport import PASSING

#: pushed: the service has it. refused: the service answered that it does not take it. failed: it
#: never got an answer, or an error of the service's own, or the tensors made no step. dropped: it
#: was never tried: no room in the queue, or the client closed first.
Outcome = Literal["pushed", "refused", "failed", "dropped"]
LOST: tuple[Outcome, ...] = ("refused", "failed", "dropped")

NO_ROOM = "no room in the queue"
AFTER_CLOSE = "pushed after the client closed"
LEFT_AT_CLOSE = "still waiting when the client closed"


def outcome_of(error: Exception) -> tuple[Outcome, str]:
    """The counter of a push that raised, and the reason in a few words."""
    if not isinstance(error, DriftscopeError):
        return "failed", type(error).__name__
    status = error.status
    refused = status is not None and 400 <= status < 500 and status not in PASSING
    return ("refused" if refused else "failed"), error.reason


class PushTicket:
    """One push, from its call to its one outcome."""

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        self._ended = False


class Outcomes:
    """Counts pushes; once nothing waits, `begun` is the sum of the four counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Outcome] = Counter()
        self._reasons: Counter[tuple[Outcome, str]] = Counter()
        self._told = 0  # losses that a summary has named
        self.begun = 0

    def begin(self) -> PushTicket:
        with self._lock:
            self.begun += 1
        return PushTicket()

    def end(self, ticket: PushTicket, outcome: Outcome, reason: str = "") -> bool:
        """False, and nothing is counted, where the push has ended already."""
        with self._lock:
            if ticket._ended:
                return False
            ticket._ended = True
            self._counts[outcome] += 1
            if reason:
                self._reasons[outcome, reason] += 1
            return True

    def count(self, outcome: Outcome) -> int:
        return self._counts[outcome]

    def summary(self) -> str | None:
        """How many steps did not arrive, and why; None where no more were lost since the last."""
        with self._lock:
            lost = sum(self._counts[outcome] for outcome in LOST)
            if lost <= self._told:
                return None
            self._told = lost
            causes = "; ".join(
                f"{self._counts[outcome]} {outcome} ({self._causes(outcome)})"
                for outcome in LOST
                if self._counts[outcome]
            )
            steps = "step" if self.begun == 1 else "steps"
            return f"{lost} of {self.begun} {steps} did not arrive: {causes}."

    def _causes(self, outcome: Outcome) -> str:
        """The commonest first."""
        own = [(n, why) for (of, why), n in self._reasons.items() if of == outcome]
        if len(own) == 1:
            return own[0][1]
        return ", ".join(f"{n} {why}" for n, why in sorted(own, reverse=True))


class PushCounts:
    """The counters of a client. `pushes` is the sum of the other four once nothing waits."""

    _outcomes: Outcomes

    @property
    def pushes(self) -> int:
        """Calls of push(), push_shard() and push_now() so far."""
        return self._outcomes.begun

    @property
    def pushed(self) -> int:
        """Pushes that the service has."""
        return self._outcomes.count("pushed")

    @property
    def refused(self) -> int:
        """Pushes that the service answered with a refusal (4xx), such as a conflict or no key."""
        return self._outcomes.count("refused")

    @property
    def failed(self) -> int:
        """Pushes without an answer, with an error of the service (5xx, 429), or malformed."""
        return self._outcomes.count("failed")

    @property
    def dropped(self) -> int:
        """Pushes that were never tried: no room in the queue, or the client closed first."""
        return self._outcomes.count("dropped")
