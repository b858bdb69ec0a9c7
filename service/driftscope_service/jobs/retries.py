"""Which errors are worth another attempt, how often, and how long to wait before it.

Whatever is not in the table fails at once: a request that cannot be carried out stays so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from driftscope_service.jobs.executors.base import NodeLost
from driftscope_service.jobs.job import (
    DatabaseUnavailable,
    JobAttempt,
    JobError,
    KilledForMemory,
    OwnerLost,
    ServiceStopped,
)

#: No backoff is longer: a person who looks at the job sees that something will still happen.
MOST_WAIT_S: Final = 300.0
#: A wait is drawn from this range around its length, so that jobs that failed together do not
#: begin together.
JITTER: Final = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Retry:
    most: int  # attempts after the first error of its name
    first_wait_s: float  # doubled each time
    reason: str  # why another attempt may end otherwise


#: By the name of the error.
RETRIES: Final[Mapping[str, Retry]] = {
    NodeLost.__name__: Retry(3, 5.0, "the machine is gone, not the work: another one can do it"),
    # An update in steps, or nodes that are taken back, stop a service several times in the life of
    # one job. Not without end: the probe itself may be what takes the service down.
    ServiceStopped.__name__: Retry(9, 0.0, "the service was stopped, the probe was not at fault"),
    OwnerLost.__name__: Retry(9, 0.0, "the instance is gone or cut off: another one can do it"),
    DatabaseUnavailable.__name__: Retry(9, 1.0, "a lock passes and a server comes back"),
    # A neighbour may have taken the memory. The second time it is the probe's own size.
    KilledForMemory.__name__: Retry(1, 30.0, "other work may have taken the memory"),
}


def wait_before_next(
    error: JobError,
    attempts: Sequence[JobAttempt],
    draw: Callable[[float, float], float] = random.uniform,
) -> float | None:
    """Seconds until another attempt; None: there is none. `attempts` ended with `error`."""
    retry = RETRIES.get(error.error)
    if retry is None:
        return None
    alike = sum(one.reason is not None and one.reason.error == error.error for one in attempts)
    if alike > retry.most:
        return None
    wait_s = retry.first_wait_s * 2.0 ** max(0, alike - 1) * draw(*JITTER)
    return min(MOST_WAIT_S, wait_s)


def final(error: JobError, attempts: Sequence[JobAttempt]) -> JobError:
    """`error` as the end of a job that was tried more than once."""
    if len(attempts) < 2:
        return error
    return replace(error, message=f"{error.message} That was attempt {len(attempts)}, the last.")
