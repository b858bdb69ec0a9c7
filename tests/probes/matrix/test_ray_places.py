"""Places of a Ray cluster: which nodes, and a real local cluster of two with cheap work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.places.base import PlaceError
from driftscope_probes.matrix.places.ray import RayNode, RayPlace, nodes_of, ray_places
from driftscope_probes.matrix.work import pack
from driftscope_probes.progress import discard

from .made_up import WORK, answer

#: The least that Ray takes.
OBJECT_STORE_BYTES = 80_000_000
#: The work of a place without a model: the answer that lies in the test's folder.
CHEAP = """
import shutil, sys
from pathlib import Path
from driftscope_probes.children import child_main

def run(request, workdir, progress):
    shutil.copy({answer!r}, workdir / "answer.safetensors")
    return {{}}

child_main(run)
"""


def node(name: str, resources: Mapping[str, float] = {}, *, alive: bool = True) -> dict[str, Any]:
    found = {"CPU": 4.0, **resources}
    address = f"10.0.0.{len(name)}"
    return {"NodeID": name, "Alive": alive, "NodeManagerAddress": address, "Resources": found}


H200 = {"GPU": 8.0, "accelerator_type:H200": 1.0}
FOUND = [
    node("b", H200),
    node("a", H200),
    node("c"),
    node("d", alive=False),
    node("e", {"CPU": 0.0}),
    node("f", {"CPU": 8.0}),
]


def test_every_node_that_is_alive_and_can_work() -> None:
    assert [one.node_id for one in nodes_of(FOUND, "each")] == ["a", "b", "c", "f"]


def test_one_node_of_every_type() -> None:
    found = nodes_of(FOUND, "types")
    assert {one.node_id for one in found} == {"a", "c", "f"}
    assert {one.type for one in found} == {("H200", 4.0, 8.0), ("", 4.0, 0.0), ("", 8.0, 0.0)}


@pytest.mark.parametrize("address", ["10.0.0.1", "fe80::1", "a/b c", "x" * 300])
def test_names_of_nodes_are_plain(address: str) -> None:
    assert RayNode("ab12cd34", address, "NVIDIA-H200", 1.0, 1.0).name.endswith("ab12cd")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes; their workers find the test's module as a child's own."""
    ray: Any = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    sent = tmp_path / "sent.safetensors"
    sent.write_bytes(pack(answer()))
    (tmp_path / "cheap_place.py").write_text(CHEAP.format(answer=str(sent)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    cluster: Any = Cluster()
    # Nobody here reads logs or a dashboard; each is a process that has to start first.
    lean: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False}
    try:
        cluster.add_node(**lean, object_store_memory=OBJECT_STORE_BYTES)
        cluster.add_node(**lean, object_store_memory=OBJECT_STORE_BYTES)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_answer_and_a_lost_one_says_so(cluster: Any, tmp_path: Path) -> None:
    found = ray_places(cluster.address, "each")
    assert len(found) == 2 and len({place.name for place in found}) == 2
    cheap = [RayPlace(place.node, module="cheap_place") for place in found]
    for place in cheap:
        assert place.run(WORK, tmp_path, discard) == pack(answer())
    with pytest.raises(ProbeError, match="lacks a package"):
        RayPlace(found[0].node, module="no_such_place").run(WORK, tmp_path, discard)
    (worker,) = cluster.worker_nodes
    lost = next(one for one in cheap if one.node.node_id == worker.node_id)
    cluster.remove_node(worker)
    with pytest.raises(PlaceError, match="the node was lost"):
        lost.run(WORK, tmp_path, discard)
