"""A probe that is killed, stopped or loses its engine leaves no process and no half a report."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
ENGINE = "driftscope_probes.engines.run_rollout"


def start(tmp_path: Path) -> subprocess.Popen[str]:
    arguments = ["--model", "tiny-random-llama", "--engine", "hf", "--threads", "1"]
    arguments += ["--prompts", "64", "--batch-size", "1", "--max-tokens", "512", "--out", "report"]
    return subprocess.Popen(
        [str(DRIFTSCOPE), "probe", "paired", *arguments],
        cwd=tmp_path,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def engine_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The engine's process, once it samples."""
    assert process.stderr is not None
    for line in process.stderr:
        if "sampling" in line:
            break
    return next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if ENGINE in child.cmdline()
    )


def gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 15
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_killed_engine_is_a_clear_error(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        engine_of(process).kill()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the engine process was killed by SIGKILL" in told
    assert "What to do:" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_probe_takes_its_engine_along(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        engine = engine_of(process)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert gone(engine)
    assert not list(tmp_path.iterdir())


def test_a_killed_probe_leaves_no_engine_and_no_report(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        engine = engine_of(process)
        process.kill()
        process.communicate(timeout=60)
    assert gone(engine)
    assert not (tmp_path / "report").exists()
