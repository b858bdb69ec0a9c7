"""Which steps' tokens go when: a ring of the newest steps of each run, limits crossed, a budget.

In: what is kept now. Out: what to drop, in the order to drop it. Nothing is deleted here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """The stored tokens of one step; (run, step) is unique."""

    run: str
    step: int
    size_bytes: int
    received_at: datetime  # all with a time zone or all without
    crossed_limit: bool  # the step crossed a limit of the comparison


def tokens_to_drop(
    kept: Sequence[KeptTokens], ring_steps: int, budget_bytes: int
) -> list[KeptTokens]:
    """What remains fits the budget.

    Kept are the `ring_steps` highest steps of every run and all that crossed a limit. Over the
    budget go first the others of the ring, then those that crossed a limit, and last the newest
    step of each run (the highest in its ring), so that each run shows its last tokens while the
    budget lasts; within each of these three the ones received first go first. The step received
    last of all runs' newest therefore goes only where it alone exceeds the budget.
    """
    rings = _rings(kept, ring_steps)
    ring = {one for members in rings for one in members}
    newest = {members[0] for members in rings}
    by_age = sorted(kept, key=_age)
    dropped = [one for one in by_age if one not in ring and not one.crossed_limit]
    remaining = sum(one.size_bytes for one in kept) - sum(one.size_bytes for one in dropped)
    stays = set(kept) - set(dropped)
    # Stable: what is as dear to keep stays in the order of age.
    for one in sorted(
        (one for one in by_age if one in stays),
        key=lambda one: 2 if one in newest else int(one.crossed_limit),
    ):
        if remaining <= budget_bytes:
            break
        dropped.append(one)
        remaining -= one.size_bytes
    return dropped


def _rings(kept: Sequence[KeptTokens], ring_steps: int) -> list[list[KeptTokens]]:
    """The highest steps of every run, highest first; none is empty."""
    runs: dict[str, list[KeptTokens]] = defaultdict(list)
    for one in sorted(kept, key=lambda one: one.step, reverse=True):
        runs[one.run].append(one)
    return [steps[:ring_steps] for steps in runs.values() if ring_steps > 0]


def _age(one: KeptTokens) -> tuple[datetime, str, int]:
    """First received first; run and step make the order the same every time."""
    return one.received_at, one.run, one.step
