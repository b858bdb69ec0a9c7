"""What a probe may take of the machine: memory, devices, and what the kernel says about it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from driftscope_service.jobs.executors import local, memory
from driftscope_service.jobs.executors.local import DEVICE_VARIABLE, Devices
from driftscope_service.jobs.executors.memory import group_bytes, out_of_memory_kills


def test_a_probe_that_leaks_is_ended_and_the_limit_named(
    run_service: Any, processes_of: Any
) -> None:
    with run_service(max_probe_memory_gib=0.25) as running:
        job_id = running.start("leak")
        job = running.wait(job_id)
        assert (job["state"], job["error"]["error"]) == ("failed", "ProbeTooLarge")
        assert "more than the limit of 0.25 GiB" in job["error"]["message"]
        assert "DRIFTSCOPE_MAX_PROBE_MEMORY_GIB" in job["error"]["remedy"]
        assert len(job["attempts"]) == 1
        assert processes_of(job_id) == []
        assert running.finished_report()  # within the limit


def test_the_memory_of_a_group_is_that_of_all_its_processes() -> None:
    held = "held = bytearray(b'x' * 2**26)"
    child = f"{held}; print('ready', flush=True); import time; time.sleep(600)"
    leader = f"{held}; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", leader], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        assert 2 * 2**26 < group_bytes(process.pid) < 4 * 2**26
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert group_bytes(process.pid) == 0


@pytest.mark.parametrize(
    ("text", "kills"), [("pgfault 1\noom_kill 7\nnumber 2\n", 7), ("pgfault 1\n", 0), (None, 0)]
)
def test_the_kernels_count_of_kills(
    text: str | None, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "vmstat").write_text(text)
    monkeypatch.setattr(memory, "VMSTAT", tmp_path / "vmstat")
    assert out_of_memory_kills() == kills


def test_a_probe_that_the_kernel_killed_for_memory_is_tried_again(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(local, "out_of_memory_kills", lambda: next(kills))
    job_id = running.start("crash")
    running.wait(job_id, "running")
    job = running.wait(job_id, "queued", "failed")
    assert job["state"] == "queued" and job["not_before"] > job["created_at"]
    assert job["attempts"][0]["reason"]["error"] == "KilledForMemory"
    assert "no memory was left" in job["attempts"][0]["reason"]["message"]
    page = running.client.get(f"/jobs/{job_id}", headers={"accept": "text/html"}).text
    assert "Attempt 2 follows" in page
    assert running.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    page = running.client.get(f"/jobs/{job_id}", headers={"accept": "text/html"}).text
    assert "cancelled before another attempt began" in page


def test_each_running_probe_has_a_device_of_its_own(run_service: Any) -> None:
    with run_service(max_concurrent_probes=2, devices=("0", "GPU-a,GPU-b")) as running:
        jobs = [running.start("gate"), running.start("gate")]
        for job_id in jobs:
            running.wait(job_id, "running")
            folder = running.data_dir / "jobs" / job_id / "attempt-1"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "go").touch()
        logs = [running.client.get(running.wait(one)["links"]["logs"]).text for one in jobs]
    seen = sorted(line for log in logs for line in log.splitlines() if "on device" in line)
    assert seen == ["on device 0", "on device GPU-a,GPU-b"]


def test_a_device_goes_to_the_next_when_it_is_free() -> None:
    devices, seen = Devices(["0"]), list[str]()

    def work() -> None:
        with devices.one() as variables:
            seen.append(variables[DEVICE_VARIABLE])

    waiting = threading.Thread(target=work)
    with devices.one() as first:
        assert first == {DEVICE_VARIABLE: "0"}
        waiting.start()
        assert seen == []
    waiting.join(30)
    assert seen == ["0"]
    with Devices().one() as none:
        assert none == {}
