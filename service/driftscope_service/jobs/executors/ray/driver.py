"""Process entry beside the service: takes one job to a Ray cluster and follows it to its end.

    python -m driftscope_service.jobs.executors.ray.driver WORKDIR

request.json: the job's request with `cluster` (ClusterOptions), `module`, `job_id`, `smaller` and
the service's `versions`. The service itself never imports Ray. This process ends with the
service; the cluster then ends the actor, and the actor's guard the probe.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ray
import ray.exceptions

from driftscope_probes.children import child_main, parse_progress
from driftscope_probes.durable_file import whole_file
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.jobs.executors.ray.attachment import attach, fetch, ready
from driftscope_service.jobs.executors.ray.errors import (
    Node,
    Reported,
    Versions,
    check_versions,
    lost,
    silent,
)
from driftscope_service.jobs.executors.ray.node import NodeProbe, node_of, versions
from driftscope_service.jobs.executors.ray.options import ClusterOptions
from driftscope_service.jobs.executors.ray.transfer import (
    WORK,
    check_report_size,
    files_named,
    inside,
    pack,
    return_path,
)
from driftscope_service.jobs.job import KEPT_NAMES, LOG_NAME

#: The actor answers within a second: this is the network or the node.
SILENCE_S: Final = 60.0
#: For the actor to end its probe, which has five seconds between SIGTERM and SIGKILL.
CLOSE_WITHIN_S: Final = 8.0
#: Questions that may be under way at once: the last one of a loop, and `close`.
ACTOR_THREADS: Final = 4
#: Of one log that is copied to the service's disk; a page shows its end.
MOST_LOG_BYTES: Final = 256 << 20
RESULT: Final = f"{WORK}/result.json"


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    asked = dict(request)
    options = ClusterOptions(**asked.pop("cluster"))
    ours = Versions(**asked.pop("versions"))
    progress(Progress("attaching to the cluster", 0.0, options.address))
    attach(options)
    contents = pack(asked)
    actor = _actor(options)
    try:
        remote = RemoteProbe(actor, workdir, progress)
        remote.place(ours, options)
        remote.ask(actor.start.remote(json.dumps(asked), contents))
        remote.follow()
        report = remote.collect(asked)
    finally:
        _end(actor)
    ray.shutdown()
    return report


def _actor(options: ClusterOptions) -> Any:
    """It dies with this process, and is never started again: a second start is an attempt."""
    demand: dict[str, Any] = {"num_cpus": options.cpus, "num_gpus": options.gpus}
    if options.memory_bytes:
        demand["memory"] = options.memory_bytes
    if options.accelerator_type:
        demand["accelerator_type"] = options.accelerator_type
    if options.resources:
        demand["resources"] = dict(options.resources)
    kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=ACTOR_THREADS)(NodeProbe)
    return kind.options(**demand).remote()


def _end(actor: Any) -> None:
    """A lost node cannot answer; there the actor ends itself for lack of questions."""
    try:
        ray.wait([actor.close.remote()], timeout=CLOSE_WITHIN_S)
        ray.kill(actor)
    except (ray.exceptions.RayError, ConnectionError) as error:
        print(f"the actor could not be ended: {error}", file=sys.stderr)


class RemoteProbe:
    """The actor, seen from here."""

    def __init__(self, actor: Any, workdir: Path, progress: ProgressSink) -> None:
        self._actor = actor
        self._workdir = workdir
        self._progress = progress
        self._node: Node | None = None
        self._offsets: dict[str, int] = {}

    def place(self, ours: Versions, options: ClusterOptions) -> None:
        """Wait until the cluster has room; the time limit of the job counts."""
        self._progress(Progress("waiting for a node of the cluster", 0.0, options.demand))
        self._node = node_of(self.ask(self._actor.describe.remote(), patience_s=None))
        check_versions(self._node, ours)
        check_versions(self._node, versions())
        self._progress(Progress("starting on a node", 0.0, str(self._node)))
        print(f"on {self._node}", flush=True)

    def ask(self, answer: Any, patience_s: float | None = SILENCE_S) -> Any:
        """Raises Cancelled, or NodeLost where the node is gone or silent."""
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while not ready([answer]):
            if deadline is not None and time.monotonic() > deadline:
                raise silent(self._node, patience_s or 0.0)
        return fetch(answer, self._node)

    def follow(self) -> None:
        """Progress and logs, until the probe has ended."""
        seen, ended = 0, False
        while not ended:
            told, pieces = self.ask(self._actor.news.remote(seen, self._offsets))
            fields = json.loads(told)
            for made in fields["progress"]:
                self._progress(parse_progress(made))
            for name, offset, piece in pieces:
                self._log(name, offset, piece)
            seen, ended = seen + len(fields["progress"]), fields["ended"]

    def _log(self, name: str, offset: int, piece: bytes) -> None:
        self._offsets[name] = offset + len(piece)
        if offset + len(piece) > MOST_LOG_BYTES:
            return
        if name == LOG_NAME:
            # Our own output goes there, so the page of the job shows both in order.
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            return
        path = inside(self._workdir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if offset else "wb") as file:
            file.write(piece)

    def collect(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The report; the files that it names, and those that the probe changed, are here then."""
        outcome = json.loads(self.ask(self._actor.outcome.remote()))
        if outcome["error"] is not None:
            raise Reported(outcome["error"])
        sizes: dict[str, int] = outcome["files"]
        check_report_size(sizes[RESULT])
        report: dict[str, Any] = json.loads(b"".join(self._chunks(RESULT, sizes[RESULT])))
        start = WORK + "/"
        work = {n.removeprefix(start): size for n, size in sizes.items() if n.startswith(start)}
        for name in files_named(report, work):
            if name not in KEPT_NAMES:
                self._fetch(start + name, work[name], inside(self._workdir, name))
        for name in sorted(sizes):
            if not name.startswith(start):
                self._fetch(name, sizes[name], return_path(request, name))
        return report

    def _fetch(self, name: str, size: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            for chunk in self._chunks(name, size):
                file.write(chunk)

    def _chunks(self, name: str, size: int) -> Any:
        offset = 0
        while offset < size:
            chunk = self.ask(self._actor.read.remote(name, offset))
            if not chunk:
                raise lost(self._node, f"its file {name} ended at {offset} of {size} bytes")
            yield chunk
            offset += len(chunk)


if __name__ == "__main__":
    child_main(run)
