"""The thread that renews the leases of what runs here, and takes over what nobody runs any more.

An instance that is gone or cut off stops renewing. That is seen without trusting a wall clock: a
lease that has not changed for as long as it lasts, by the monotonic clock of whoever looks, has no
owner. The clock of the database may shorten that, where it says the lease has expired; a clock that
is set forward cannot make it shorter than two renewals, and one that is set back delays nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import OperationalError

from driftscope_service.jobs.claims import (
    LEASE_S,
    ClaimRepository,
    HeldLease,
    LeaseLost,
    Owner,
)
from driftscope_service.jobs.executors.base import StopReason
from driftscope_service.jobs.job import (
    AttemptOutcome,
    JobError,
    JobFolder,
    JobState,
    owner_lost,
    service_stopped,
)
from driftscope_service.jobs.run_job import JobTools
from driftscope_service.jobs.running import RunningAttempts

#: A cancel that came to another instance takes effect within it; one short read.
TICK_S: Final = 1.0
#: Six chances before a lease expires; each one is a write.
RENEW_S: Final = 5.0
#: Least time without a renewal before a lease is taken, whatever the database's clock says.
LEAST_UNCHANGED_S: Final = 2 * RENEW_S
_log = logging.getLogger("driftscope")


@dataclass(slots=True)
class LeaseWatch:
    """Which leases nobody renews."""

    clock: Callable[[], float] = time.monotonic
    _since: dict[HeldLease, float] = field(default_factory=dict)  # first seen as it is

    def abandoned(self, held: Sequence[HeldLease]) -> Iterator[HeldLease]:
        now = self.clock()
        # `expired` may change by itself; a renewal changes `expires_at`.
        self._since = {_as_renewed(lease): self._seen(lease, now) for lease in held}
        for lease in held:
            unchanged_s = now - self._seen(lease, now)
            if unchanged_s >= (LEAST_UNCHANGED_S if lease.expired else LEASE_S):
                yield lease

    def _seen(self, lease: HeldLease, now: float) -> float:
        return self._since.get(_as_renewed(lease), now)


def _as_renewed(lease: HeldLease) -> HeldLease:
    return HeldLease(lease.fence, lease.host, lease.expires_at, expired=False)


class LeaseKeeper:
    def __init__(
        self, tools: JobTools, owner: Owner, running: RunningAttempts, announce: Callable[[], None]
    ) -> None:
        """announce: tells the slots that a job waits."""
        self._tools, self._owner, self._running = tools, owner, running
        self._announce = announce
        self._watch = LeaseWatch()
        self._next_renewal = 0.0
        self._thread = threading.Thread(target=self._work, name="job-leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _work(self) -> None:
        while not self._tools.stopping.wait(TICK_S):
            try:
                self.tick()
            except OperationalError as error:
                _log.error("leases of jobs could not be renewed: %s", error)
            except Exception:
                # Without this thread every job that runs here would be taken away.
                _log.exception("the keeper of leases failed")

    def tick(self) -> None:
        self._stop_what_must()
        if time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + RENEW_S
            self.renew()
            self.take_over_abandoned()

    def _stop_what_must(self) -> None:
        running = self._running.all()
        for attempt in running:
            if attempt.out_of_time:
                attempt.stop.request(StopReason.OUT_OF_TIME)
        if not running:
            return
        with self._tools.database.read() as connection:
            cancelled = ClaimRepository(connection).cancel_requested(
                [attempt.claim.job.id for attempt in running]
            )
        for job_id in cancelled:
            self._running.stop_job(job_id, StopReason.CANCELLED)

    def renew(self) -> None:
        running = {attempt.claim.fence: attempt for attempt in self._running.all()}
        if not running:
            return
        with self._tools.database.write() as connection:
            lost = ClaimRepository(connection).renew(running)
        for fence in lost:
            # Or it has just ended, which the signal no longer reaches.
            running[fence].stop.request(StopReason.LEASE_LOST)

    def take_over_abandoned(self) -> None:
        running = {attempt.claim.fence for attempt in self._running.all()}
        with self._tools.database.read() as connection:
            held = ClaimRepository(connection).held()
        others = [lease for lease in held if lease.fence not in running]
        for lease in list(self._watch.abandoned(others)):
            error = JobError.of(owner_lost(str(lease.fence.owner), lease.host))
            self._take_over(lease, error, AttemptOutcome.LOST)

    def recover(self, former: str | None) -> None:
        """Before anything is claimed: what the process before this one on the data folder left. The
        lock of the folder says that it is gone, whatever any clock says."""
        with self._tools.database.read() as connection:
            held = ClaimRepository(connection).held()
        for lease in held:
            if lease.fence.owner in (former, None):
                self._take_over(lease, JobError.of(service_stopped()), AttemptOutcome.STOPPED)

    def _take_over(self, lease: HeldLease, error: JobError, outcome: AttemptOutcome) -> None:
        fence = lease.fence
        folder = JobFolder(self._tools.data_dir, fence.job_id).attempt(fence.attempt)
        try:
            with self._tools.database.write() as connection:
                job = ClaimRepository(connection).end_without_report(
                    fence,
                    error,
                    outcome,
                    log_tail=folder.log_tail(),
                    total_time_limit_s=self._tools.total_time_limit_s,
                    unless_renewed_since=lease,
                )
        except LeaseLost:
            return  # it was renewed, has ended, or another instance was faster
        killed = []
        # Elsewhere the fence keeps its processes harmless.
        if lease.host in (self._owner.host, ""):
            killed = self._tools.end_orphans([(fence.job_id, fence.attempt)])
            folder.tidy()
        self._tools.counts.ended(error, outcome, retried=job.state is JobState.QUEUED)
        _log.warning(
            "%s had no owner any more and is now %s: %s Processes killed: %s",
            *(fence, job.state, error.message, killed or "none"),
        )
        if job.state is JobState.QUEUED:
            self._announce()
