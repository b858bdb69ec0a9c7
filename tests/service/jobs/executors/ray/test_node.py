"""The actor without a cluster: what it starts, tells, hands over, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from driftscope_service.jobs.executors.ray import guard
from driftscope_service.jobs.executors.ray.node import NodeProbe, probe_environment

Eventually = Callable[[Callable[[], bool]], None]
ProcessesOf = Callable[[str], list[int]]


@pytest.fixture
def probe(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    # A real actor's process was started with what its probe needs; this one was not.
    monkeypatch.setattr(psutil.Process, "environ", lambda _: dict(os.environ))
    made = NodeProbe()
    yield made
    made.close()


def order(act: str, job_id: str = "job_node") -> str:
    asked = {"kind": "paired", "request": {"prompts": [act]}, "model_path": None}
    return json.dumps({**asked, "module": "quick_probe", "job_id": job_id, "smaller": "less"})


def until_ended(probe: NodeProbe) -> tuple[list[str], bytes]:
    stages: list[str] = []
    log, ended = b"", False
    while not ended:
        told, pieces = probe.news(len(stages), {"log.txt": len(log)})
        assert probe.news(len(stages), {"log.txt": len(log)})[1][: len(pieces)] == pieces
        fields = json.loads(told)
        stages += [made["stage"] for made in fields["progress"]]
        log, ended = log + b"".join(piece for _, _, piece in pieces), fields["ended"]
    return stages, log


def test_it_tells_everything_once_more_until_it_is_acknowledged(probe: NodeProbe) -> None:
    probe.start(order("refuse"), {})
    stages, log = until_ended(probe)
    assert stages == ["refuse"]
    assert log.startswith(b"quick probe: refuse\n")
    outcome = json.loads(probe.outcome())
    assert outcome["error"]["error"] == "EngineError"
    assert outcome["files"].keys() == {"work/log.txt", "work/request.json", "work/error.json"}
    assert probe.read("work/log.txt", 6) == log[6:]


def test_a_carried_file_that_did_not_change_stays_there(probe: NodeProbe) -> None:
    probe.start(order("refuse"), {"floors/one.json": b"1"})
    until_ended(probe)
    assert "floors/one.json" not in json.loads(probe.outcome())["files"]
    (probe._folder / "floors" / "one.json").write_bytes(b"2")
    assert json.loads(probe.outcome())["files"]["floors/one.json"] == 1


def test_without_questions_it_ends_the_probe_and_itself(
    eventually: Eventually, clean_environment: None, processes_of: ProcessesOf
) -> None:
    """In a process of its own, since that is what it ends."""
    code = f"""
import sys, time
from driftscope_service.jobs.executors.ray import node
node.LEASE_S = 1.0
probe = node.NodeProbe()
probe.start({order("family", "job_lease")!r}, {{}})
print(probe._folder, flush=True)
time.sleep(600)
"""
    paths = os.pathsep.join([os.environ["PYTHONPATH"], *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as actor:
        assert actor.stdout is not None
        folder = Path(actor.stdout.readline().strip())
        assert actor.wait(30) == 1
    eventually(lambda: processes_of("job_lease") == [] and not folder.exists())


def test_the_guard_ends_the_group_and_removes_the_folder(
    tmp_path: Path, eventually: Eventually, is_gone: Callable[[int], bool]
) -> None:
    for done in (False, True):
        folder = tmp_path / str(done)
        folder.mkdir()
        with subprocess.Popen(["sleep", "600"], start_new_session=True) as group:
            command = [sys.executable, "-I", "-S", guard.__file__, str(group.pid), str(folder)]
            with subprocess.Popen(command, stdin=subprocess.PIPE) as guarding:
                assert guarding.wait(30) == 0
                assert not is_gone(group.pid) and folder.exists()
                assert guarding.stdin is not None
                guarding.stdin.write(guard.DONE if done else b"")
            eventually(lambda folder=folder: not folder.exists())  # type: ignore[misc]
            assert is_gone(group.pid) is not done
            group.send_signal(signal.SIGKILL)


def test_a_probe_sees_the_node_not_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"PATH": "/bin", "RAY_AUTH_TOKEN": "secret", "SPT_NOENV": "1", "OMP_WAIT_POLICY": "p"}
    monkeypatch.setattr(psutil.Process, "environ", lambda _: dict(started))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # as Ray sets it in its worker
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert probe_environment() == {
        "PATH": "/bin",
        "OMP_WAIT_POLICY": "p",
        "CUDA_VISIBLE_DEVICES": "3",
    }


def test_a_log_that_began_anew_is_told_from_its_start(probe: NodeProbe) -> None:
    probe._work.mkdir()
    (probe._work / "log.txt").write_text("new")
    assert probe._grown({"log.txt": 100}) == [("log.txt", 0, b"new")]
    assert probe._grown({"log.txt": 3}) == []
