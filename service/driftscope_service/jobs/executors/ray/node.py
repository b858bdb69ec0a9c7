"""The actor: on a node of the cluster it runs the probe as a process, as the local executor does.

Called by the driver alone (driver.py), with several threads, so that it answers while the probe
runs. What it answers is bytes, numbers and JSON text: nothing that the driver would have to trust.
An actor that hears nothing for LEASE_S ends its probe and itself: the service may be gone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from driftscope_probes.children import ChildProcess
from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress
from driftscope_service.jobs.executors.local import AT_ONCE, JOB_VARIABLE, OFFLINE
from driftscope_service.jobs.executors.ray import guard
from driftscope_service.jobs.executors.ray.errors import Node, Versions, no_model
from driftscope_service.jobs.executors.ray.transfer import (
    CHUNK_BYTES,
    WORK,
    inside,
    missing_models,
    unpack,
)
from driftscope_service.jobs.job import LOG_NAME, explain_crash

#: Longer than a pause of the network or of a busy driver, short enough that a GPU is soon free.
LEASE_S: Final = 90.0
#: How soon progress and log reach the page of the job; a look at the folder per tick.
TICK_S: Final = 0.1
#: A question is answered after this long even where there is nothing to tell.
TELL_WITHIN_S: Final = 1.0
#: Of all logs in one answer.
LOG_CHUNK_BYTES: Final = 256 << 10
#: Set by Ray in the actor's process for the devices that it gave to the actor.
DEVICES_SUFFIX: Final = "_VISIBLE_DEVICES"
#: Ray's own; a probe must behave as it does without Ray, and needs no token of the cluster.
RAY_PREFIXES: Final = ("RAY_", "SPT_NOENV")


def versions() -> Versions:
    return Versions(metadata.version("driftscope"), ".".join(platform.python_version_tuple()[:2]))


def probe_environment() -> dict[str, str]:
    """As the node was started with, and the devices that Ray gave.

    Not as it is now: Ray sets OMP_NUM_THREADS for an actor, which changes how a sum is split and
    so its bits.
    """
    devices = {name: value for name, value in os.environ.items() if name.endswith(DEVICES_SUFFIX)}
    started = psutil.Process().environ()
    return {
        name: value
        for name, value in (started | devices).items()
        if not name.startswith(RAY_PREFIXES)
    }


class NodeProbe:
    """One probe, from `start` to `close`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="driftscope-job-"))
        self._work = self._folder / WORK
        self._carried: Mapping[str, bytes] = {}
        self._lock = threading.Lock()
        self._progress: list[dict[str, Any]] = []
        self._dropped = 0  # of the progress, since the driver has it
        self._error: dict[str, str] | None = None
        self._child: ChildProcess | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._heard_at = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def describe(self) -> str:
        return described()

    def start(self, order: str, contents: Mapping[str, bytes]) -> None:
        """`order`: the request with `module`, `job_id` and `smaller`. Returns when it runs."""
        self._heard_at = time.monotonic()
        asked = json.loads(order)
        self._carried = contents
        threading.Thread(target=self._run, args=(asked,), name="probe", daemon=True).start()
        self._ready.wait()

    def _run(self, asked: dict[str, Any]) -> None:
        """In a thread that lives as long as the probe: the kernel ends the probe with it."""
        try:
            self._start(asked)
            assert self._child is not None
            self._child.wait()
        except ProbeError as error:
            self._error = error.to_dict()
        except Exception as error:
            # The boundary of a thread: the driver has to hear of it.
            self._error = {
                "error": "ServiceFailed",
                "message": f"the node could not run the probe: {type(error).__name__}: {error}",
                "remedy": "check the node's disk and memory; the log of Ray there says more.",
            }
        finally:
            if self._child is not None:
                self._child.terminate()  # what it left of its group
            self._ready.set()
            self._ended.set()

    def _start(self, asked: dict[str, Any]) -> None:
        missing = missing_models(asked)
        if missing:
            raise no_model(self._node(), missing)
        module, job_id = asked.pop("module"), asked.pop("job_id")
        self._child = ChildProcess(
            module,
            unpack(asked, self._carried, self._folder),
            self._work,
            explain_crash=partial(explain_crash, asked["smaller"]),
            on_progress=self._hear,
            environment={JOB_VARIABLE: job_id, **OFFLINE, **AT_ONCE},
            inherited=probe_environment(),
            new_session=True,
        )
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(self._child.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._guard.wait()  # it goes on in the background
        self._ready.set()

    def _hear(self, progress: Progress) -> None:
        with self._lock:
            self._progress.append(progress.to_dict())

    def news(
        self, seen: int, offsets: Mapping[str, int]
    ) -> tuple[str, list[tuple[str, int, bytes]]]:
        """What is new since `seen` items of progress and `offsets` in the logs.

        Answers the same question with the same again: an answer may get lost.
        """
        self._heard_at = time.monotonic()
        deadline = self._heard_at + TELL_WITHIN_S
        while True:
            # Before the logs are read: what was written before the end is then in this answer.
            ended = self._ended.is_set()
            progress, logs = self._progress_after(seen), self._grown(offsets)
            if progress or logs or ended or time.monotonic() > deadline:
                told = {"progress": progress, "ended": ended and not logs}
                return json.dumps(told), logs
            self._ended.wait(TICK_S)

    def _progress_after(self, seen: int) -> list[dict[str, Any]]:
        with self._lock:
            del self._progress[: max(0, seen - self._dropped)]
            self._dropped = max(self._dropped, seen)
            return list(self._progress)

    def _grown(self, offsets: Mapping[str, int]) -> list[tuple[str, int, bytes]]:
        """Pieces of the logs of the probe and of the engines that it starts."""
        pieces, room = [], LOG_CHUNK_BYTES
        for path in sorted(self._work.rglob(LOG_NAME)):
            name, size = path.relative_to(self._work).as_posix(), path.stat().st_size
            offset = offsets.get(name, 0)
            if size < offset:
                offset = 0  # another engine began it anew
            if size > offset and room > 0:
                with path.open("rb") as file:
                    file.seek(offset)
                    piece = file.read(room)
                pieces.append((name, offset, piece))
                room -= len(piece)
        return pieces

    def outcome(self) -> str:
        """The error of the probe or null, and the files that it left, with their sizes."""
        self._heard_at = time.monotonic()
        files = {
            path.relative_to(self._folder).as_posix(): path.stat().st_size
            for path in self._folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        changed = {name: size for name, size in files.items() if self._changed(name, size)}
        return json.dumps({"error": self._error, "files": changed})

    def _changed(self, name: str, size: int) -> bool:
        before = self._carried.get(name)
        if before is None or len(before) != size:
            return True
        return (self._folder / name).read_bytes() != before

    def read(self, name: str, offset: int) -> bytes:
        self._heard_at = time.monotonic()
        with inside(self._folder, name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    def close(self) -> None:
        """No process of the probe and no file of it is left when this returns."""
        self._closed.set()
        if self._child is not None:
            self._child.cancel()
            self._ended.wait()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.write(guard.DONE)
            self._guard.stdin.close()
            self._guard = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        while time.monotonic() - self._heard_at < LEASE_S:
            if self._closed.wait(TICK_S):
                return  # whoever closed it ends the process too
        self.close()
        os._exit(1)

    def _node(self) -> Node:
        return node_of(described())


def described() -> str:
    """The node that this process of Ray runs on, for `node_of` elsewhere."""
    import ray

    return json.dumps(
        {
            "id": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "address": ray.util.get_node_ip_address(),
            "driftscope": versions().driftscope,
            "python": versions().python,
        }
    )


def node_of(described: str) -> Node:
    told = json.loads(described)
    told_versions = Versions(told["driftscope"], told["python"])
    return Node(told["id"], told["host"], told["address"], told_versions)
