"""Jobs as processes of this machine: one process group each, on a device of its own if some are
named."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from driftscope_probes.children import ChildProcess
from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.jobs.executors.base import ProgressWriter, StopReason, StopSignal, Work
from driftscope_service.jobs.executors.memory import GIB, group_bytes, out_of_memory_kills
from driftscope_service.jobs.job import JobKind, KilledForMemory, explain_crash, too_large
from driftscope_service.jobs.stages import StageLog

DEFAULT_MODULE = "driftscope_probes.run_probe"
#: Mark every process of an attempt, including the engine's own; `kill_orphans` looks for them.
JOB_VARIABLE = "DRIFTSCOPE_JOB_ID"
ATTEMPT_VARIABLE = "DRIFTSCOPE_JOB_ATTEMPT"
#: Numbers the devices that a process sees; torch and vLLM obey it.
DEVICE_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: Clients name local models only, so a probe never needs the Hub.
OFFLINE = {"HF_HUB_OFFLINE": "1"}
#: The page of a job shows its log while it grows.
AT_ONCE = {"PYTHONUNBUFFERED": "1"}
#: How soon a cancel takes effect; two system calls per tick.
TICK_S = 0.1
#: How soon a leak is seen: a process that fills memory takes seconds for a GiB of it.
MEMORY_EVERY_S = 0.5


class Devices:
    """Each one for one job at a time. Without names every job sees what the service sees."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._free = list(names)
        self._named = bool(names)
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[Mapping[str, str]]:
        """As variables of the job's processes. Waits while all are taken, which the settings rule
        out: they allow no more probes at once than there are devices."""
        if not self._named:
            yield {}
            return
        with self._changed:
            self._changed.wait_for(lambda: bool(self._free))
            name = self._free.pop(0)
        try:
            yield {DEVICE_VARIABLE: name}
        finally:
            with self._changed:
                self._free.append(name)
                self._changed.notify()


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    module: str
    python: Path | None
    time_limit_s: float
    kinds: Mapping[str, JobKind]
    memory_limit_gib: float | None = None  # of all processes of a job together; None: any
    devices: Devices = field(default_factory=Devices)

    @property
    def name(self) -> str:
        return "local"

    def run(self, work: Work, stop: StopSignal, progress: ProgressWriter) -> dict[str, Any]:
        killed_before = out_of_memory_kills()
        try:
            with self.devices.one() as device:
                return self._run(work, device, stop, progress)
        except ProbeError as error:
            # Probes and engines name the signal that ended a process of theirs.
            if "SIGKILL" in error.message and out_of_memory_kills() > killed_before:
                raise KilledForMemory(
                    f"{error.message} The kernel did it, since no memory was left.",
                    remedy=error.remedy,
                ) from error
            raise

    def _run(
        self, work: Work, device: Mapping[str, str], stop: StopSignal, progress: ProgressWriter
    ) -> dict[str, Any]:
        kind = self.kinds[work.request["kind"]]
        mark = {JOB_VARIABLE: work.job_id, ATTEMPT_VARIABLE: str(work.attempt)}

        def start(heard: ProgressSink) -> ChildProcess:
            return ChildProcess(
                self.module,
                {**work.request, "runner": kind.runner},
                work.workdir,
                explain_crash=partial(explain_crash, kind.smaller),
                on_progress=heard,
                environment={**mark, **device, **OFFLINE, **AT_ONCE},
                new_session=True,
                python=str(self.python or sys.executable),
            )

        return run_child(
            start, work, stop, progress, self.time_limit_s, memory_limit_gib=self.memory_limit_gib
        )


def run_child(
    start: Callable[[ProgressSink], ChildProcess],
    work: Work,
    stop: StopSignal,
    progress: ProgressWriter,
    time_limit_s: float,
    *,
    memory_limit_gib: float | None = None,
) -> dict[str, Any]:
    """Note its stages, obey `stop`, keep the limits; no process of its group is left at the end."""
    work.workdir.mkdir(parents=True, exist_ok=True)
    stages = StageLog(work.workdir)
    stages.note(Progress("starting a process", 0.0))

    def heard(made: Progress) -> None:
        stages.note(made)
        progress.offer(made)

    child = start(heard)
    watch = _Watch(child, stop, time_limit_s, memory_limit_gib, progress)
    watch.start()
    try:
        return child.wait()
    except Cancelled:
        if watch.held_gib is not None and memory_limit_gib is not None:
            raise too_large(watch.held_gib, memory_limit_gib) from None
        raise
    finally:
        watch.end()
        # A probe that ended by itself may have left a process of its group behind.
        child.terminate()


class _Watch(threading.Thread):
    """Ends a child that is to stop, runs too long or takes too much memory."""

    def __init__(
        self,
        child: ChildProcess,
        stop: StopSignal,
        time_limit_s: float,
        memory_limit_gib: float | None,
        progress: ProgressWriter,
    ) -> None:
        super().__init__(name=f"watch-{child.pid}")
        self._child, self._stop_signal, self._progress = child, stop, progress
        self._deadline = time.monotonic() + time_limit_s
        self._memory_limit_gib = memory_limit_gib
        self._next_look = time.monotonic()
        self._ended = threading.Event()
        self.held_gib: float | None = None  # memory over the limit, for which the child was ended

    def end(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(TICK_S):
            self._progress.flush()
            if time.monotonic() > self._deadline:
                self._stop_signal.request(StopReason.TIMED_OUT)
            if self._stop_signal.reason is not None:
                return self._child.cancel()
            self.held_gib = self._over_limit()
            if self.held_gib is not None:
                return self._child.cancel()
            if _dead(self._child.pid):
                # Its children may hold the progress pipe open, on which wait() would then hang.
                return self._child.terminate()

    def _over_limit(self) -> float | None:
        if self._memory_limit_gib is None or time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + MEMORY_EVERY_S
        held_gib = group_bytes(self._child.pid) / GIB
        return held_gib if held_gib > self._memory_limit_gib else None


def _dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def kill_orphans(attempts: Iterable[tuple[str, int]]) -> list[int]:
    """Kill every process that carries the mark of one of `attempts`, which are identifiers of jobs
    with a number each; returns the processes' ids."""
    wanted = {(job_id, str(attempt)) for job_id, attempt in attempts}
    if not wanted:
        return []
    killed = []
    for process in psutil.process_iter():
        try:
            marks = process.environ()
            # Processes of a version that did not number its attempts have none.
            if (marks.get(JOB_VARIABLE), marks.get(ATTEMPT_VARIABLE, "0")) in wanted:
                process.kill()
                killed.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it has exited, or is another user's and so not ours
    return killed
