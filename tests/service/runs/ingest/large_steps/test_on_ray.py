"""Large steps on a real cluster of two nodes: the same document as here, and what may go wrong.

The limit is lowered; shards, nodes and the processes between them are real.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.service.ray_cluster import Cluster, two_nodes

from driftscope_probes.floor.store import FOLDER, FloorStore, StoredFloor, machine
from driftscope_service.runs.store.steps import StepRepository

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_environment")]
DTYPES = {"model": "m", "rollout_dtype": "bf16", "trainer_dtype": "bf16"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as running:
        yield running


@pytest.fixture
def on_ray(cluster: Cluster, run_service: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service with the executor `ray`; an address takes the place of the cluster's."""
    monkeypatch.setenv("PYTHONPATH", cluster.environment["PYTHONPATH"])

    def run(**given: Any) -> Any:
        asked = {"ray_address": cluster.address, "ray_token_file": cluster.token_file, **given}
        return run_service(executor="ray", **asked)

    return run


def bodies(pushing: Any, **last: str) -> list[bytes]:
    """Four shards; `last`: metadata that the last one has otherwise."""
    known = [DTYPES] * 3 + [{**DTYPES, **last}]
    return [pushing.body(seed=seed, metadata=one) for seed, one in enumerate(known)]


def document(running: Any) -> bytes:
    with running.service.database.read() as connection:
        stored = StepRepository(connection).get("r", 1)
    assert stored is not None
    return stored.analysis


def floors_of(folder: Path) -> None:
    """One of this machine, and a later one of another: a node that judged by itself would take the
    later one, were it not this machine."""
    for of, sigma in ((machine(), 0.0123), ("another", 0.5)):
        floor = StoredFloor(
            schema_version="1", model="m", fingerprint=None, rollout_dtype="bf16",
            trainer_dtype="bf16", machine=of, sigma=sigma, low=None, high=None, basis="same_side",
            tokens=512, sequences=16, measured_by="floor", created_at="2026-11-29T17:00:00+00:00",
        )  # fmt: skip
        FloorStore(folder).put([floor])


def test_the_document_is_that_of_the_service_itself(
    on_ray: Any,
    run_service: Any,
    pushing_to: Any,
    push_shards: Any,
    complete: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = {}
    for where, service in (("local", run_service), ("ray", on_ray)):
        with caplog.at_level(logging.INFO, "driftscope"), service(data_dir=tmp_path / where) as one:
            floors_of(one.data_dir / FOLDER)
            pushing = pushing_to(one)
            push_shards(pushing, "r", bodies(pushing))
            answer = complete(pushing, "r")
            assert answer.status_code == 201, answer.text
            assert answer.json()["diagnosis"]["floor"]["sigma"] == 0.0123
            assert pushing.files() == []
            found[where] = document(one)
    assert found["ray"] == found["local"]
    [said] = [record.getMessage() for record in caplog.records if "on the cluster" in record.msg]
    assert said.startswith("4 shards") and said.count("node ") == 2, said


def test_what_is_wrong_with_a_shard_is_said_in_the_same_words(
    on_ray: Any, run_service: Any, pushing_to: Any, push_shards: Any, complete: Any, tmp_path: Path
) -> None:
    """The planted faults: a shard whose file was damaged, and one with other metadata."""
    said = {}
    for where, service in (("local", run_service), ("ray", on_ray)):
        with service(data_dir=tmp_path / where) as running:
            pushing = pushing_to(running)
            push_shards(pushing, "damaged", bodies(pushing))
            (pushing.data_dir / "steps" / pushing.files()[2]).write_bytes(b"no step")
            push_shards(pushing, "differs", bodies(pushing, framework="other"))
            answers = [complete(pushing, run) for run in ("damaged", "differs")]
            assert [answer.status_code for answer in answers] == [400, 400]
            said[where] = [{**answer.json(), "request_id": ""} for answer in answers]
            assert len(pushing.files()) == 8
    assert said["ray"] == said["local"]
    assert "in shard 3" in said["ray"][1]["detail"]


@contextmanager
def ending_shards(cluster: Cluster) -> Iterator[list[dict[str, str]]]:
    """Kills every process that analyses a shard; the variables of those."""
    ended: list[dict[str, str]] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            for pid in cluster.processes():
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    if "ray::analyze_on_node" in " ".join(process.cmdline()):
                        variables = process.environ()
                        process.kill()
                        ended.append(variables)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def test_a_shard_that_ends_every_process_is_given_up(
    on_ray: Any,
    pushing_to: Any,
    push_shards: Any,
    complete: Any,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with on_ray() as running, ending_shards(cluster) as ended:
        pushing = pushing_to(running)
        push_shards(pushing, "r", [pushing.body([4000] * 200, seed=seed) for seed in (1, 2)])
        answer = complete(pushing, "r")
        assert answer.status_code == 503, answer.text
        assert "of the cluster was lost" in answer.json()["detail"]
        assert len(pushing.files()) == 2
    assert len(ended) >= 4  # each of them was tried again by Ray
    # Not the number that Ray would set.
    assert {variables["OMP_NUM_THREADS"] for variables in ended} == {"3"}


def test_without_a_cluster_the_shards_are_kept_for_another_try(
    on_ray: Any, pushing_to: Any, push_shards: Any, complete: Any, tmp_path: Path
) -> None:
    with on_ray(ray_address="127.0.0.1:1") as running:
        pushing = pushing_to(running)
        push_shards(pushing, "r", bodies(pushing))
        answer = complete(pushing, "r")
        assert answer.status_code == 503, answer.text
        problem = answer.json()
        assert problem["type"] == "/problems/analysis-failed"
        assert "127.0.0.1:1 does not answer" in problem["detail"]
        assert "DRIFTSCOPE_RAY_ADDRESS" in problem["remedy"]
        assert "complete the step again" in problem["remedy"]
        assert int(answer.headers["Retry-After"]) > 0
        assert len(pushing.files()) == 4
    with on_ray() as running:
        assert complete(pushing_to(running), "r").status_code == 201
