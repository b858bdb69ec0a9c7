"""When a push is sent again, and after how long. The service knows a repeated push by its bytes.

In: how often it failed, and the answer if there was one. Out: seconds to wait, or None: give up.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

#: Too busy, starting, or a proxy that found nobody behind it. Every other answer is final.
PASSING = frozenset({429, 502, 503, 504})
#: Of Retry-After and of our own waits: a service that is away longer is down.
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """With the defaults it gives up after about 15 seconds of waiting."""

    attempts: int = 5
    first_wait_s: float = 1.0

    def wait_s(self, failures: int, answer: httpx.Response | None) -> float | None:
        """`failures` counts from 1. Without an answer, the connection failed or broke."""
        if failures >= self.attempts or (answer is not None and answer.status_code not in PASSING):
            return None
        # Half of it at random, so that the ranks of one job do not return all at once.
        backoff = self.first_wait_s * 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)
        return min(max(backoff, _retry_after_s(answer)), LONGEST_WAIT_S)


def _retry_after_s(answer: httpx.Response | None) -> float:
    """Only its form in seconds; a date counts as nothing said."""
    said = "" if answer is None else answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0
