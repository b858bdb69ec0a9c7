"""Jobs on a real cluster of two nodes: how they succeed, end and get lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors import safe_open

from driftscope_probes.errors import Cancelled, ModelError, ProbeError
from driftscope_probes.paired.request import PairedRequest
from driftscope_service.jobs.executors.base import NodeLost, StopReason
from driftscope_service.jobs.executors.local import DEFAULT_MODULE
from driftscope_service.jobs.executors.ray.errors import ClusterRefused, NodeMismatch, Versions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ours_on_the_path")]
ProcessesOf = Callable[[str], list[int]]
#: A cluster of two nodes beside other tests on two cores.
PATIENCE_S = 120.0
SECOND = {"second": 1.0}
#: Of two runs of one request: when and where they ran, and for how long.
NOT_COMPARED = ("created_at", "timing")


@pytest.fixture
def ours_on_the_path(monkeypatch: pytest.MonkeyPatch, cluster: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", cluster.environment["PYTHONPATH"])


def request(act: str, **fields: Any) -> dict[str, Any]:
    asked = {
        **{"model": "tiny-random-llama", "prompts": [act], "sampling": {"seed": 3}},
        **{"engine_dtypes": ["bf16"], "trainer_dtypes": ["bf16"]},
    }
    return {"kind": "paired", "request": asked, "model_path": None, **fields}


@contextmanager
def running(attempt: Any, executor: Any, asked: dict[str, Any]) -> Iterator[Any]:
    """The future of a run in another thread, once the probe has said something."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(attempt.run, executor, asked)
        try:
            wait_until(lambda: "quick probe" in attempt.log or future.done())
            yield future
        finally:
            attempt.stop.request(StopReason.SERVICE_STOPPED)


def wait_until(true: Callable[[], bool]) -> None:
    waiting, tick = threading.Event(), 0.1
    for _ in range(int(PATIENCE_S / tick)):
        if true():
            return
        waiting.wait(tick)
    raise AssertionError(f"not within {PATIENCE_S} s")


def temporary_folders() -> set[Path]:
    return set(Path("/tmp").glob("driftscope-job-*"))


def test_a_job_gives_the_report_the_files_and_the_logs_of_a_local_one(
    cluster: Any,
    executor_on: Any,
    attempt: Any,
    locally: Any,
    tmp_path: Path,
    processes_of: ProcessesOf,
) -> None:
    before = temporary_folders()
    report = attempt.run(executor_on(), request("succeed"))
    there = {path: path.read_bytes() for path in attempt.workdir.glob("pairs/*")}
    log, progress = attempt.log, list(attempt.progress)
    assert processes_of(attempt.job_id) == []
    attempt.workdir = tmp_path / "local"
    assert report == attempt.run(locally, request("succeed"))
    assert {path.name: content for path, content in there.items()} == {
        path.name: path.read_bytes() for path in attempt.workdir.glob("pairs/*")
    }
    assert "quick probe: succeed" in log and "on node" in log
    assert (tmp_path / "attempt/rollout-bf16/log.txt").read_text() == "the engine's own words\n"
    assert {"waiting for a node of the cluster", "succeed"} <= set(progress)
    # Only what the report names comes back.
    assert not (tmp_path / "attempt/rollout-bf16/trace.safetensors").exists()
    wait_until(lambda: temporary_folders() <= before)


def test_an_error_of_the_probe_keeps_its_name_and_remedy(executor_on: Any, attempt: Any) -> None:
    with pytest.raises(ProbeError, match="out of order") as error:
        attempt.run(executor_on(), request("refuse"))
    assert error.value.to_dict()["error"] == "EngineError"
    assert error.value.to_dict()["remedy"] == "repair it."


def test_a_crash_on_the_node_is_explained_as_here(executor_on: Any, attempt: Any) -> None:
    with pytest.raises(ProbeError, match="SIGKILL") as error:
        attempt.run(executor_on(), request("crash"))
    assert error.value.to_dict()["error"] == "ProbeCrashed"


def test_cancel_ends_the_probe_and_what_it_started(
    executor_on: Any, attempt: Any, processes_of: ProcessesOf
) -> None:
    before = temporary_folders()
    with running(attempt, executor_on(), request("family")) as future:
        wait_until(lambda: len(processes_of(attempt.job_id)) == 3)  # driver, probe, its child
        attempt.stop.request(StopReason.CANCELLED)
        with pytest.raises(Cancelled):
            future.result()
    assert processes_of(attempt.job_id) == []
    wait_until(lambda: temporary_folders() <= before)


def test_a_killed_driver_leaves_nothing_on_the_node(
    executor_on: Any, attempt: Any, processes_of: ProcessesOf
) -> None:
    """As where the service itself is killed: no one is left who could say `cancel`."""
    before = temporary_folders()
    with running(attempt, executor_on(), request("family")) as future:
        wait_until(lambda: len(processes_of(attempt.job_id)) == 3)
        [driver] = [pid for pid in processes_of(attempt.job_id) if is_driver(pid)]
        os.kill(driver, 9)
        with pytest.raises(ProbeError, match="SIGKILL"):
            future.result()
    wait_until(lambda: processes_of(attempt.job_id) == [])
    wait_until(lambda: temporary_folders() <= before)


def is_driver(pid: int) -> bool:
    return any(word.endswith("ray.driver") for word in psutil.Process(pid).cmdline())


def test_a_wrong_token_is_refused(
    cluster: Any, executor_on: Any, attempt: Any, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    with pytest.raises(ClusterRefused, match="does not accept the service's token") as error:
        attempt.run(executor_on(token_file=wrong), request("succeed"))
    assert "DRIFTSCOPE_RAY_TOKEN_FILE" in error.value.remedy
    told = attempt.log + (attempt.workdir / "request.json").read_text()
    assert "0" * 64 not in told and cluster.token_file.read_text() not in told


def test_another_version_on_the_node_is_named(executor_on: Any, attempt: Any) -> None:
    current = executor_on()
    older = replace(current, cluster=replace(current.cluster, versions=Versions("0.0.1", "3.9")))
    with pytest.raises(NodeMismatch, match=r"the service has driftscope 0\.0\.1 with Python 3\.9"):
        attempt.run(older, request("succeed"))


def test_a_model_folder_that_the_node_lacks_is_named(executor_on: Any, attempt: Any) -> None:
    with pytest.raises(ModelError, match=r"node .* has no folder /nowhere/model"):
        attempt.run(executor_on(), request("succeed", model_path="/nowhere/model"))


def test_a_real_probe_is_bitwise_the_same(
    executor_on: Any, attempt: Any, locally: Any, tmp_path: Path, tiny_llama: Path
) -> None:
    asked = PairedRequest.model_validate(
        {
            **{"model": "tiny-random-llama", "prompts": 2, "resamples": 50},
            **{"engine_dtypes": ["bf16"], "trainer_dtypes": ["fp32"]},
            **{"sampling": {"max_tokens": 8}, "engine": {"kind": "hf", "threads": 1}},
            "trainer": {"threads": 1},
        }
    )
    fields = {"request": asked.model_dump(mode="json"), "model_path": None, "kind": "paired"}
    floors = tmp_path / "floors"
    asked_here = {**fields, "floors": str(floors)}
    there = attempt.run(executor_on(DEFAULT_MODULE, resources=SECOND), asked_here)
    pairs = [pair(path) for path in sorted(attempt.workdir.glob("pairs/*"))]
    attempt.workdir = tmp_path / "local"
    here = attempt.run(replace(locally, module=DEFAULT_MODULE), asked_here)
    assert compared(there) == compared(here)
    assert pairs and pairs == [pair(path) for path in sorted(attempt.workdir.glob("pairs/*"))]


def pair(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Every bit but the order of the metadata, which safetensors leaves to chance."""
    with safe_open(path, "numpy") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}


def compared(report: dict[str, Any]) -> str:
    """Every bit of it but NOT_COMPARED; floats as JSON writes them, which keeps every bit."""
    return json.dumps({k: v for k, v in report.items() if k not in NOT_COMPARED}, sort_keys=True)


def test_a_node_lost_in_the_middle_costs_one_attempt(
    cluster: Any, executor_on: Any, attempt: Any, processes_of: ProcessesOf, tmp_path: Path
) -> None:
    """The last one: the second node is gone after it. Ray notices within some seconds."""
    executor = executor_on(resources=SECOND)
    with running(attempt, executor, request("family")) as future:
        assert "on node" in attempt.log
        for pid in raylets(cluster)[-1:]:
            os.kill(pid, 9)
        with pytest.raises(NodeLost) as error:
            future.result()
    assert error.value.to_dict()["error"] == "NodeLost"
    wait_until(lambda: processes_of(attempt.job_id) == [])
    again = type(attempt)(tmp_path / "again", attempt.job_id)
    assert again.run(executor_on(), request("succeed"))["kind"] == "paired"


def raylets(cluster: Any) -> list[int]:
    """In the order of their starts."""
    found = [psutil.Process(pid) for pid in cluster.processes()]
    ours = [process for process in found if process.name() == "raylet"]
    return [process.pid for process in sorted(ours, key=lambda one: one.create_time())]
