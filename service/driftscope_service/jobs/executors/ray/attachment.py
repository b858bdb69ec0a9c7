"""A driver at its cluster: attach, wait, fetch. Imports Ray, and so belongs to drivers alone.

What Ray raises becomes an error of `errors`, in words that a user can act on.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Final

import ray
import ray.exceptions

from driftscope_probes.errors import Cancelled
from driftscope_service.jobs.executors.ray.errors import (
    Node,
    lost,
    no_driftscope,
    other_ray,
    refused,
    unreachable,
)
from driftscope_service.jobs.executors.ray.node import versions
from driftscope_service.jobs.executors.ray.options import ClusterOptions

#: How soon a cancel takes effect.
TICK_S: Final = 0.1
#: A head that is being restarted comes back within this time.
ATTACH_WITHIN_S: Final = 30.0
#: What a node, or the process that worked there, takes with it when it goes.
_LOST: Final = (
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ConnectionError,
)
_stop = threading.Event()


def attach(options: ClusterOptions) -> None:
    """From here on SIGTERM makes `ready` raise Cancelled."""
    deadline = time.monotonic() + ATTACH_WITHIN_S
    while not _attached(options, deadline):
        time.sleep(1.0)
    # After ray.init, which sets a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: _stop.set())


def _attached(options: ClusterOptions, deadline: float) -> bool:
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
        return True
    except (ConnectionError, ray.exceptions.RayError) as error:
        words = f"{error} {error.__cause__ or ''}"
        if "AuthToken" in words or isinstance(error, ray.exceptions.AuthenticationError):
            raise refused(options.address) from None
        if time.monotonic() > deadline:
            raise unreachable(options.address, words) from None
        return False
    except RuntimeError as error:
        if "ersion mismatch" in str(error):
            raise other_ray(str(error)) from None
        raise unreachable(options.address, str(error)) from None


def ready(answers: list[Any]) -> list[Any]:
    """Those of them that are there, none after TICK_S. Raises Cancelled."""
    if _stop.is_set():
        raise Cancelled("the run was cancelled.", remedy="start it again.")
    there: list[Any] = ray.wait(answers, timeout=TICK_S)[0]
    return there


def fetch(answer: Any, node: Node | None = None) -> Any:
    """`node`: that it comes from, where that is known. Raises NodeLost or NodeMismatch."""
    try:
        return ray.get(answer)
    except (ray.exceptions.RayError, ConnectionError) as error:
        if "No module named" in str(error):
            raise no_driftscope(str(error), versions()) from None
        if isinstance(error, _LOST):
            raise lost(node, str(error)) from None
        raise
