"""The processes that analyse pushed steps, so that neither event loop nor other requests wait.

In: a function of `analysis` and its arguments. Out: its result, or its PushError.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, Final, ParamSpec, TypeVar

from driftscope_probes.errors import ProbeError
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError

P = ParamSpec("P")
R = TypeVar("R")
#: On a busy machine the service itself has priority: it answers in milliseconds or not at all.
NICENESS = 10
#: A new process is there at once, the first one after two seconds.
RESTART_RETRY_S = 5
#: Processes are forked from a server that has loaded this and has no threads. The service itself
#: has some, and a lock that one of them holds would stay locked in its fork.
PRELOADED: Final = [
    "driftscope_service.runs.ingest.one_blas_thread",
    "driftscope_service.runs.ingest.analysis_preload",
]


class AnalysisPool:
    """Processes start with the first call, or with `warm_up`."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None

    def warm_up(self) -> None:
        """Start a process now, which the first push would otherwise wait for. Returns at once."""
        self._running().submit(os.getpid)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        executor = self._running()
        try:
            outcome = await asyncio.wrap_future(
                executor.submit(_outcome, function, args, dict(kwargs))
            )
        except BrokenProcessPool:
            self._replace(executor)
            raise ServiceError(
                problem_kinds.ANALYSIS_FAILED,
                "the process that analysed the step ended, probably out of memory",
                headers={"Retry-After": str(RESTART_RETRY_S)},
                remedy="push it as smaller shards, or send it again",
            ) from None
        if isinstance(outcome, dict):
            raise ProbeError.from_dict(outcome)
        result: R = outcome[0]
        return result

    def stop(self) -> None:
        """Waits for an analysis under way; one that waits is given up. May be called twice."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    def _running(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self._workers,
                    mp_context=_context(),
                    initializer=_prepare,
                )
            return self._executor

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._executor is broken:
                self._executor = None
        broken.shutdown(wait=False)


def _context() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _outcome(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any] | dict[str, str]:
    """An error of a user as its dictionary: exceptions with keyword arguments do not pickle."""
    try:
        return (function(*args, **kwargs),)
    except ProbeError as error:
        return error.to_dict()


def _prepare() -> None:
    # Ctrl-C reaches the whole terminal group; the service decides when its processes end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed service cannot tell its processes, which would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
