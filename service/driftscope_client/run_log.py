"""What a run's log says of its pushes: the true cause of a loss, once a minute, and the total.

In: what became of pushes, and the link to the service. Out: lines of `driftscope_client`'s logger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from driftscope_client.background_queue import RepeatedWarning, log
from driftscope_client.errors import DriftscopeError
from driftscope_client.outcomes import AFTER_CLOSE, NO_ROOM, Outcome, Outcomes
from driftscope_client.transport import Transport

#: What limits depend on; without both, the loosest of any dtype apply.
DTYPES = ("rollout_dtype", "trainer_dtype")


class RunLog:
    def __init__(self, run: str) -> None:
        self._run = run
        self._warning = RepeatedWarning()
        self._told_dtypes = False

    def trouble(self, error: DriftscopeError) -> None:
        """An attempt that failed and is made again."""
        told = f"run {self._run}: {error.message} Its steps wait and are tried again."
        self._warning.warn(f"trying: {error.reason}", told)

    def lost(self, step: int, outcome: Outcome, reason: str, error: Exception) -> None:
        self._warning.warn(f"{outcome}: {reason}", f"step {step} was not pushed: {error}")

    def no_room(self, step: int, queue: str, link: Transport, backlog_since: float) -> None:
        """queue: what waits, in words. backlog_since: time.monotonic()."""
        reason, why = _why_they_wait(link, backlog_since)
        kind = f"{NO_ROOM}: {reason}"
        self._warning.warn(kind, f"step {step} was dropped: {queue} wait (queue_size). {why}")

    def after_close(self, step: int) -> None:
        self._warning.warn(AFTER_CLOSE, f"step {step} was dropped: the client is closed.")

    def callback_failed(self, name: str, step: int, error: Exception) -> None:
        told = f"{name} raised {type(error).__name__} for step {step}: {error}"
        self._warning.warn(name, told)

    def end_untold(self, link: Transport) -> None:
        why = "." if link.trouble is None else f": {link.trouble.message}"
        told = f"{link.url} does not know that run {self._run} has ended{why}"
        self._warning.warn("end of the run", told)

    def total(self, outcomes: Outcomes, latest: Exception | None) -> None:
        """How many steps did not arrive, unless that has been said already."""
        summary = outcomes.summary()
        if summary is not None:
            error = "" if latest is None else f" Latest error: {latest}"
            log.warning("run %s: %s%s", self._run, summary, error)

    def unknown_dtypes(self, metadata: Mapping[str, object]) -> None:
        """Once, with what follows from it."""
        unknown = [name for name in DTYPES if not metadata.get(name)]
        if unknown and not self._told_dtypes:
            self._told_dtypes = True
            log.warning(
                "run %s: the metadata name no %s, so only the loosest limits apply, those of any "
                'dtype. Give what yours is ("bf16", "fp16", "fp32"): metadata={%s}.',
                self._run,
                " and no ".join(unknown),
                ", ".join(f'"{name}": …' for name in unknown),
            )


def _why_they_wait(link: Transport, backlog_since: float) -> tuple[str, str]:
    """In a few words, and as sentences."""
    if link.trouble is not None:
        return link.trouble.reason, str(link.trouble)
    if link.answered_at > backlog_since:
        return "slow", f"{link.url} answers, but does not keep up with the steps."
    asked_at = link.asked_at
    if asked_at is None:  # the first of them was put this moment
        return "new", f"They came faster than the first of them could be sent to {link.url}."
    waited_s = time.monotonic() - asked_at
    return "silent", f"{link.url} has not answered the first of them, sent {waited_s:.1f} s ago."
