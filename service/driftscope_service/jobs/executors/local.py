"""Jobs as processes of this machine: one process group each."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from driftscope_probes.children import ChildProcess
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.jobs.executors.base import ProgressWriter, StopReason, StopSignal, Work
from driftscope_service.jobs.job import JobKind, explain_crash
from driftscope_service.jobs.stages import StageLog

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
class LocalExecutor:
    module: str
    python: Path | None
    time_limit_s: float
    kinds: Mapping[str, JobKind]

    @property
    def name(self) -> str:
        return "local"

    def run(self, work: Work, stop: StopSignal, progress: ProgressWriter) -> dict[str, Any]:
        kind = self.kinds[work.request["kind"]]

        def start(heard: ProgressSink) -> ChildProcess:
            return ChildProcess(
                self.module,
                {**work.request, "runner": kind.runner},
                work.workdir,
                explain_crash=partial(explain_crash, kind.smaller),
                on_progress=heard,
                environment={JOB_VARIABLE: work.job_id, **OFFLINE, **AT_ONCE},
                new_session=True,
                python=str(self.python or sys.executable),
            )

        return run_child(start, work, stop, progress, self.time_limit_s)


def run_child(
    start: Callable[[ProgressSink], ChildProcess],
    work: Work,
    stop: StopSignal,
    progress: ProgressWriter,
    time_limit_s: float,
) -> dict[str, Any]:
    """Note its stages, obey `stop`, keep the time; no process of its group is left at the end."""
    work.workdir.mkdir(parents=True, exist_ok=True)
    stages = StageLog(work.workdir)
    stages.note(Progress("starting a process", 0.0))

    def heard(made: Progress) -> None:
        stages.note(made)
        progress.offer(made)

    child = start(heard)
    ended = threading.Event()
    deadline = time.monotonic() + time_limit_s
    watch = threading.Thread(
        target=_watch,
        args=(child, stop, deadline, progress, ended),
        name=f"watch-{work.job_id}",
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
