"""Process entry beside the service: takes the shards of one step to a Ray cluster.

    python -m driftscope_service.runs.ingest.large_steps.driver WORKDIR

request.json: `parts` (path and format each), `run` (RunFacts), `floors` (a folder), `environment`
of the tasks, and `cluster` with `versions` as for a job's driver. What comes back from the cluster
is JSON text: the shards' results stay there, where the last task merges them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

from driftscope_probes.children import child_main
from driftscope_probes.floor.store import machine
from driftscope_probes.progress import ProgressSink
from driftscope_service.jobs.executors.ray.attachment import attach, fetch, ready
from driftscope_service.jobs.executors.ray.errors import Reported, Versions, check_versions
from driftscope_service.jobs.executors.ray.node import node_of, versions
from driftscope_service.jobs.executors.ray.options import ClusterOptions
from driftscope_service.jobs.executors.ray.transfer import check_report_size, pack
from driftscope_service.runs.ingest.large_steps.node_tasks import analyze_on_node, merge_on_node

#: Each goes to another process, mostly on another node: what ends four of them is the shard, which
#: is too large for the memory of a node.
TASK_RETRIES: Final = 3
#: Where the cluster has more CPUs. Shards of 512 MiB are then 8 GiB in Ray's object store on the
#: service's machine, which spills to disk what does not fit.
MOST_UNDER_WAY: Final = 16


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    attach(ClusterOptions(**request["cluster"]))
    step = StepOnCluster(request)
    analysis = step.merge(step.analyze(request["parts"]))
    ray.shutdown()
    return {"analysis": analysis, "nodes": dict(step.nodes)}


class StepOnCluster:
    def __init__(self, request: Mapping[str, Any]) -> None:
        self.nodes: Counter[str] = Counter()  # tasks that each one carried out
        self._ours = Versions(**request["versions"])
        # The floors of the service's machine go first, whichever node looks for one.
        order = {name: request[name] for name in ("kind", "run", "floors")}
        self._order = json.dumps({**order, "machine": machine()})
        self._floors = ray.put(pack(request))
        self._task = {
            "num_cpus": 1,
            "max_retries": TASK_RETRIES,
            "scheduling_strategy": "SPREAD",
            # Ray would set its own number of threads.
            "runtime_env": {"env_vars": request["environment"]},
        }

    def analyze(self, parts: Sequence[Mapping[str, str]]) -> list[Any]:
        """References to the shards' results, in order. Raises the error of the first shard that
        has one: those before it were taken up earlier, and are waited for."""
        task = ray.remote(**self._task, num_returns=2)(analyze_on_node)
        most = min(MOST_UNDER_WAY, max(1, int(ray.cluster_resources().get("CPU", 1))))
        found: list[Any] = []
        under_way: dict[Any, int] = {}
        errors: dict[int, dict[str, str]] = {}
        for number, part in enumerate(parts):
            while len(under_way) >= most:
                self._hear(under_way, errors)
            if errors:
                break
            # Its bytes leave this process at once, and the store when its task has ended.
            content = ray.put(np.fromfile(part["path"], np.uint8))
            told, result = task.remote(self._order, part["format"], content, self._floors)
            under_way[told] = number
            found.append(result)
        while under_way:
            self._hear(under_way, errors)
        if errors:
            raise Reported(errors[min(errors)])
        return found

    def _hear(self, under_way: dict[Any, int], errors: dict[int, dict[str, str]]) -> None:
        for told in ready(list(under_way)):
            number = under_way.pop(told)
            fields = self._checked(fetch(told))
            if fields["error"] is not None:
                errors[number] = fields["error"]

    def merge(self, found: Sequence[Any]) -> dict[str, Any]:
        told = ray.remote(**self._task)(merge_on_node).remote(self._order, *found)
        while not ready([told]):
            pass
        text = fetch(told)
        check_report_size(len(text))
        fields = self._checked(text)
        if fields["error"] is not None:
            raise Reported(fields["error"])
        analysis: dict[str, Any] = fields["analysis"]
        return analysis

    def _checked(self, told: str) -> dict[str, Any]:
        """Of a node that has our versions."""
        fields: dict[str, Any] = json.loads(told)
        node = node_of(fields["node"])
        check_versions(node, self._ours)
        check_versions(node, versions())
        self.nodes[str(node)] += 1
        return fields


if __name__ == "__main__":
    child_main(run)
