"""The threads that take jobs from the table, one per slot, and the way to stop what they run."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import OperationalError

from driftscope_probes.durable_file import write_whole
from driftscope_service.jobs.claims import Claim, ClaimRepository, Owner, spent_s
from driftscope_service.jobs.executors.base import StopReason
from driftscope_service.jobs.lease_keeper import LeaseKeeper
from driftscope_service.jobs.run_job import JobCounts, JobTools, run_job
from driftscope_service.jobs.running import RunningAttempt, RunningAttempts

#: A job queued here is announced at once. This covers one queued by another instance, one that
#: waited for another attempt, and the table being busy at that moment.
IDLE_POLL_S = 1.0
#: In the data folder: the instance that held the folder last.
OWNER_NAME = "instance"
_log = logging.getLogger("driftscope")


class JobExecutor:
    def __init__(self, tools: JobTools, owner: Owner, slots: int) -> None:
        self.tools, self.owner = tools, owner
        self._announced = threading.Semaphore(0)
        self._running = RunningAttempts()
        self.leases = LeaseKeeper(tools, owner, self._running, self.announce)
        # Daemons: a service that dies of a second Ctrl-C does not wait for a probe.
        self._threads = [
            threading.Thread(target=self._work, name=f"probe-slot-{slot}", daemon=True)
            for slot in range(slots)
        ]

    def recover(self) -> None:
        """What the process before this one on the data folder left is tried again, or ended. The
        caller holds the folder alone, and no slot has been started."""
        note = self.tools.data_dir / OWNER_NAME
        try:
            former = note.read_text(encoding="utf-8") if note.is_file() else None
            self.leases.recover(former)
            write_whole(note, self.owner.instance)
        except (OSError, OperationalError) as error:
            # A full disk. The service can still be read, and the leases that are left expire.
            _log.error("jobs of the service before this one are not taken over yet: %s", error)

    def start(self) -> None:
        self.leases.start()
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return self.leases.alive and all(thread.is_alive() for thread in self._threads)

    @property
    def counts(self) -> JobCounts:
        return self.tools.counts

    def announce(self) -> None:
        """A job has been queued."""
        self._announced.release()

    def cancel(self, job_id: str) -> None:
        """Stop its probe if it runs here; cancel_requested_at must already be set. The instance
        that runs it elsewhere sees that for itself."""
        self._running.stop_job(job_id, StopReason.CANCELLED)

    def stop(self) -> None:
        """Stop every probe and return when none is left. May be called twice."""
        self.tools.stopping.set()
        self._running.stop_all(StopReason.SERVICE_STOPPED)
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                self._announced.release()
                thread.join()
        self.leases.join()

    def _work(self) -> None:
        while not self.tools.stopping.is_set():
            try:
                claim = self._claim()
                if claim is not None:
                    self._run(claim)
                    continue
            except OperationalError as error:
                _log.error("the job table does not answer: %s", error)
            except Exception:
                # A slot that ends would leave all later jobs waiting forever.
                _log.exception("a job slot failed")
            self._announced.acquire(timeout=IDLE_POLL_S)

    def _claim(self) -> Claim | None:
        with self.tools.database.read() as connection:
            if not ClaimRepository(connection).anything_due():
                return None
        with self.tools.database.write() as connection:
            return ClaimRepository(connection).claim_next(self.owner)

    def _run(self, claim: Claim) -> None:
        left_s = self.tools.total_time_limit_s - spent_s(claim.job)
        attempt = RunningAttempt(claim, left_s)
        with self._running.entered(attempt):
            self._obey_earlier_request(attempt)
            run_job(claim, attempt.stop, self.tools)

    def _obey_earlier_request(self, attempt: RunningAttempt) -> None:
        """A cancel or a stop that came between the claim and the entry in `_running`."""
        if self.tools.stopping.is_set():
            attempt.stop.request(StopReason.SERVICE_STOPPED)
        job_id = attempt.claim.job.id
        with self.tools.database.read() as connection:
            if ClaimRepository(connection).cancel_requested([job_id]):
                attempt.stop.request(StopReason.CANCELLED)
