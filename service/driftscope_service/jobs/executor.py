"""The threads that take jobs from the table, one per slot, and the way to stop what they run."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import OperationalError

from driftscope_service.jobs.executors.base import StopReason, StopSignal
from driftscope_service.jobs.job import Job
from driftscope_service.jobs.run_job import JobTools, run_job
from driftscope_service.jobs.store import JobRepository

#: A queued job is announced at once; this covers the table being busy at that moment.
IDLE_POLL_S = 1.0
_log = logging.getLogger("driftscope")


class JobExecutor:
    def __init__(self, tools: JobTools, slots: int) -> None:
        self._tools = tools
        self._announced = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._running: dict[str, StopSignal] = {}
        # Daemons: a service that dies of a second Ctrl-C does not wait for a probe.
        self._threads = [
            threading.Thread(target=self._work, name=f"probe-slot-{slot}", daemon=True)
            for slot in range(slots)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def announce(self) -> None:
        """A job has been queued."""
        self._announced.release()

    def cancel(self, job_id: str) -> None:
        """Stop its probe if it runs here; cancel_requested_at must already be set."""
        with self._lock:
            stop = self._running.get(job_id)
        if stop is not None:
            stop.request(StopReason.CANCELLED)

    def stop(self) -> None:
        """Stop every probe and return when none is left. May be called twice."""
        self._tools.stopping.set()
        with self._lock:
            for stop in self._running.values():
                stop.request(StopReason.SERVICE_STOPPED)
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                self._announced.release()
                thread.join()

    def _work(self) -> None:
        while not self._tools.stopping.is_set():
            try:
                job = self._claim()
                if job is not None:
                    self._run(job)
                    continue
            except OperationalError as error:
                _log.error("the job table does not answer: %s", error)
            except Exception:
                # A slot that ends would leave all later jobs waiting forever.
                _log.exception("a job slot failed")
            self._announced.acquire(timeout=IDLE_POLL_S)

    def _claim(self) -> Job | None:
        with self._tools.database.read() as connection:
            if JobRepository(connection).oldest_queued() is None:
                return None
        with self._tools.database.write() as connection:
            return JobRepository(connection).claim_next()

    def _run(self, job: Job) -> None:
        stop = StopSignal()
        with self._lock:
            self._running[job.id] = stop
        try:
            self._obey_earlier_request(job, stop)
            run_job(job, stop, self._tools)
        finally:
            with self._lock:
                del self._running[job.id]

    def _obey_earlier_request(self, job: Job, stop: StopSignal) -> None:
        """A cancel or a stop that came between the claim and the entry in `_running`."""
        if self._tools.stopping.is_set():
            stop.request(StopReason.SERVICE_STOPPED)
        with self._tools.database.read() as connection:
            now = JobRepository(connection).get(job.id)
        assert now is not None
        if now.cancel_requested_at is not None:
            stop.request(StopReason.CANCELLED)
