"""The process as its caller sees it: JSON lines and an exit code."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import ModelError, ProbeError
from driftscope_probes.models.run_fetch import main


def run(arguments: list[str], environment: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "driftscope_probes.models.run_fetch", *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    return finished.returncode, [json.loads(line) for line in finished.stdout.splitlines()]


def test_success(own_home: Path, child_environment: dict[str, str]) -> None:
    code, lines = run(["tiny-random-llama"], child_environment)
    assert code == 0
    assert all(set(line) == {"stage", "fraction"} for line in lines[:-1])
    assert lines[-1]["path"] == str(own_home / "models" / "tiny-random-llama")
    assert lines[-1]["model"]["dtype"] == "bf16"


def test_error(child_environment: dict[str, str]) -> None:
    code, lines = run(["tiny-random-lama"], child_environment)
    assert code == 1
    error = ProbeError.from_dict(lines[-1]["error"])
    assert isinstance(error, ModelError)
    assert "Did you mean tiny-random-llama?" in error.remedy


def test_master_dtype_that_does_not_exist(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tiny-random-llama", "--master-dtype", "fp32"]) == 1
    assert "fp32 master weights" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_force(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny-random-llama"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert main(["tiny-random-llama"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["tiny-random-llama", "--force"]) == 0
    assert capsys.readouterr().out.splitlines() == first


def test_terminated_in_mid_download_leaves_nothing(
    own_home: Path, child_environment: dict[str, str]
) -> None:
    # An index that takes the connection and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent_index:
        address = f"http://127.0.0.1:{silent_index.getsockname()[1]}/simple"
        environment = {name: v for name, v in child_environment.items() if name[:4] != "PIP_"}
        environment |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": address}
        command = [sys.executable, "-m", "driftscope_probes.models.run_fetch", "smollm2-135m"]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        connection, _ = silent_index.accept()
        with connection:
            assert list((own_home / "models").glob(".smollm2-135m.building-*"))
            child.terminate()
            child.communicate()
    assert child.returncode == 128 + signal.SIGTERM
    assert [path.name for path in (own_home / "models").iterdir()] == [".smollm2-135m.lock"]
