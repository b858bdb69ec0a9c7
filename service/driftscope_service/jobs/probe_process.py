"""The process that a job runs in, and its progress on the way to the store."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.exc import OperationalError

from driftscope_probes.children import ChildProcess
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.jobs.job import JobKind, explain_crash
from driftscope_service.jobs.stages import StageLog

#: Each write is an fsync; a person would not notice a faster change.
MIN_INTERVAL_S = 0.5
_log = logging.getLogger("driftscope")


class ProgressWriter:
    """`offer` from the thread that reads the probe, `flush` now and then from another."""

    def __init__(self, write: ProgressSink, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: Progress | None = None
        self._next_write = -float("inf")

    def offer(self, progress: Progress) -> None:
        with self._lock:
            self._pending = progress
            self._write_if_due()

    def flush(self) -> None:
        """Write what came too soon after the previous write."""
        with self._lock:
            self._write_if_due()

    def finish(self) -> None:
        """Write what is left, due or not."""
        with self._lock:
            self._write_pending()

    def _write_if_due(self) -> None:
        if self._clock() >= self._next_write:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        progress, self._pending = self._pending, None
        self._next_write = self._clock() + MIN_INTERVAL_S
        try:
            self._write(progress)
        except OperationalError as error:
            # A probe of an hour must not fail because its progress could not be noted.
            _log.warning("progress was not stored: %s", error)


class StopReason(Enum):
    CANCELLED = "cancelled"  # its user asked for it
    TIMED_OUT = "timed out"
    SERVICE_STOPPED = "service stopped"


class StopSignal:
    """The first reason counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: StopReason | None = None

    def request(self, reason: StopReason) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason

    @property
    def reason(self) -> StopReason | None:
        return self._reason


DEFAULT_MODULE = "driftscope_probes.run_probe"
#: Marks every process of a job, including the engine's own; `kill_orphans` looks for it.
JOB_VARIABLE = "DRIFTSCOPE_JOB_ID"
#: Clients name local models only, so a probe never needs the Hub.
OFFLINE = {"HF_HUB_OFFLINE": "1"}
#: The page of a job shows its log while it grows.
AT_ONCE = {"PYTHONUNBUFFERED": "1"}
#: How soon a cancel takes effect; two system calls per tick.
TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class ProbeProcess:
    module: str
    python: Path | None
    time_limit_s: float
    kinds: Mapping[str, JobKind]

    def run(
        self,
        job_id: str,
        request: Mapping[str, Any],
        workdir: Path,
        stop: StopSignal,
        progress: ProgressWriter,
    ) -> dict[str, Any]:
        """Raises Cancelled; `stop` then names the reason."""
        kind = self.kinds[request["kind"]]
        workdir.mkdir(parents=True, exist_ok=True)
        stages = StageLog(workdir)
        stages.note(Progress("starting a process", 0.0))

        def heard(made: Progress) -> None:
            stages.note(made)
            progress.offer(made)

        child = ChildProcess(
            self.module,
            {**request, "runner": kind.runner},
            workdir,
            explain_crash=partial(explain_crash, kind.smaller),
            on_progress=heard,
            environment={JOB_VARIABLE: job_id, **OFFLINE, **AT_ONCE},
            new_session=True,
            python=str(self.python or sys.executable),
        )
        ended = threading.Event()
        deadline = time.monotonic() + self.time_limit_s
        watch = threading.Thread(
            target=_watch, args=(child, stop, deadline, progress, ended), name=f"watch-{job_id}"
        )
        watch.start()
        try:
            return child.wait()
        finally:
            ended.set()
            watch.join()
            # A probe that ended by itself may have left a process of its group behind.
            child.terminate()


def _watch(
    child: ChildProcess,
    stop: StopSignal,
    deadline: float,
    progress: ProgressWriter,
    ended: threading.Event,
) -> None:
    while not ended.wait(TICK_S):
        progress.flush()
        if time.monotonic() > deadline:
            stop.request(StopReason.TIMED_OUT)
        if stop.reason is not None:
            return child.cancel()
        if _dead(child.pid):
            # Its children may hold the progress pipe open, on which wait() would then hang.
            return child.terminate()


def _dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def kill_orphans(job_ids: Iterable[str]) -> list[int]:
    """Kill every process that carries the mark of one of `job_ids`; returns their ids."""
    wanted = set(job_ids)
    if not wanted:
        return []
    killed = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(JOB_VARIABLE) in wanted:
                process.kill()
                killed.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it has exited, or is another user's and so not ours
    return killed
