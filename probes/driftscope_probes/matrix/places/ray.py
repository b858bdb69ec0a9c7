"""Places of a Ray cluster: nodes that are alive, each one or one of every type.

Ray is imported when a cluster is asked for, in the probe's own process. What a node sends back is
bytes, which are checked as those of any place; whoever runs the cluster is trusted beyond that,
since Ray's own protocol can run code at its driver.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.matrix.places.base import NAME, PlaceError
from driftscope_probes.matrix.places.local import MODULE, out_of_time, run_here
from driftscope_probes.matrix.work import Work
from driftscope_probes.models import catalogue
from driftscope_probes.progress import Progress, ProgressSink, discard

ACCELERATOR: Final = "accelerator_type:"
#: To start a worker on a node and to send its answer back, beyond the place's own time.
GRACE_S: Final = 120
#: Of a NodeID in a name: enough to tell nodes of one cluster apart.
ID_CHARACTERS: Final = 6


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node, and what tells its type."""

    node_id: str
    address: str
    accelerator: str  # "" where it has none
    cpus: float
    gpus: float

    @property
    def type(self) -> tuple[str, float, float]:
        return self.accelerator, self.cpus, self.gpus

    @property
    def name(self) -> str:
        words = [self.accelerator or "node", self.address, self.node_id[:ID_CHARACTERS]]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).strip("-._")[-64:].lstrip("-._")
        assert NAME.fullmatch(name), name
        return name


def nodes_of(found: Sequence[Mapping[str, Any]], nodes: Literal["each", "types"]) -> list[RayNode]:
    """`found`: as ray.nodes() gives them. Nodes without a CPU to run on are left out."""
    alive = sorted((_node(one) for one in found if one["Alive"]), key=lambda one: one.node_id)
    able = [node for node in alive if node.cpus >= 1.0]
    if nodes == "each":
        return able
    return list({node.type: node for node in reversed(able)}.values())[::-1]


def _node(found: Mapping[str, Any]) -> RayNode:
    resources = found["Resources"]
    accelerator = next((name for name in resources if name.startswith(ACCELERATOR)), "")
    return RayNode(
        node_id=found["NodeID"],
        address=found["NodeManagerAddress"],
        accelerator=accelerator.removeprefix(ACCELERATOR),
        cpus=float(resources.get("CPU", 0.0)),
        gpus=float(resources.get("GPU", 0.0)),
    )


def ray_places(address: str, nodes: Literal["each", "types"]) -> list[RayPlace]:
    """Connects this process to the cluster. Raises RequestError."""
    ray = _ray()
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RequestError(
            f"the Ray cluster at {address} cannot be reached: {_line(error)}",
            remedy="start it, or correct the address.",
        ) from error
    return [RayPlace(node) for node in nodes_of(ray.nodes(), nodes)]


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RequestError(
            "places of a Ray cluster need the package ray, which is not installed.",
            remedy="install driftscope[ray].",
        ) from error
    return ray


@dataclass(frozen=True, slots=True)
class RayPlace:
    node: RayNode
    module: str = MODULE
    kind: str = "ray"
    own_python: bool = False
    beside_others: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.node.name

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        """Raises ProbeError."""
        ray = _ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        progress(Progress("waiting for the node", 0.0))
        remote = ray.remote(work_on_node).options(
            num_cpus=1,
            # Without one Ray hides every GPU of the node from the worker.
            num_gpus=1 if self.node.gpus >= 1.0 else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self.node.node_id, soft=False),
            # A lost node is a row of the report with its reason; another node is another place.
            max_retries=0,
        )
        sent = remote.remote(_as_found_there(work).to_dict(), self.module)
        try:
            answer = ray.get(sent, timeout=work.seconds + GRACE_S)
        except ray.exceptions.GetTimeoutError as error:
            ray.cancel(sent, force=True)
            raise out_of_time(work) from error
        except ray.exceptions.RayError as error:
            raise PlaceError(
                f"the node was lost or could not do the work: {_line(error)}",
                remedy="see the node's state with ray list nodes; driftscope with its probes has "
                "to be installed there.",
            ) from error
        if isinstance(answer, dict):
            raise ProbeError.from_dict({name: str(value) for name, value in answer.items()})
        assert isinstance(answer, bytes)
        return answer


def _as_found_there(work: Work) -> Work:
    """The path of a catalogue model is this machine's; each node has its own copy by its name."""
    model = catalogue.find(Path(work.model).name)
    if model is not None and model.folder == Path(work.model):
        return replace(work, model=model.name)
    return work


def work_on_node(work: dict[str, Any], module: str) -> bytes | dict[str, str]:
    """In a Ray worker: the packed answer of a child, or the JSON of its error."""
    with tempfile.TemporaryDirectory(prefix="driftscope-place-") as folder:
        try:
            asked = Work.from_dict(work)
            return run_here(asked, Path(folder), discard, sys.executable, {}, module)
        except ProbeError as error:
            return error.to_dict()


#: Of an error of Ray's, whose texts hold whole tracebacks.
MOST_LINE: Final = 300


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:MOST_LINE]
