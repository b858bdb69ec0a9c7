import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_list_tells_what_is_cached(driftscope: Run, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    rows = json.loads(driftscope("model", "list", "--json", DRIFTSCOPE_HOME=home).stdout)["models"]
    assert {row["name"] for row in rows} >= {"smollm2-135m", "tiny-random-llama"}
    assert not any(row["cached"] for row in rows)
    fetched = driftscope("model", "fetch", "tiny-random-llama", DRIFTSCOPE_HOME=home)
    assert fetched.returncode == 0, fetched.stderr
    assert f"{home}/models/tiny-random-llama" in fetched.stdout
    table = driftscope("model", "list", DRIFTSCOPE_HOME=home, COLUMNS="120").stdout
    assert "tiny-random-llama" in table and "yes" in table


def test_an_unknown_name_or_dtype_is_an_error(driftscope: Run) -> None:
    unknown = driftscope("model", "fetch", "smollm3")
    assert unknown.returncode == 2
    assert "smollm2-135m" in unknown.stderr
    dtype = driftscope("model", "fetch", "tiny-random-llama", "--master-dtype", "int8")
    assert dtype.returncode == 2
    assert "bf16 or fp32" in dtype.stderr


def test_terminated_in_mid_download_it_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # An index that takes the connection and never answers.
    with socket.create_server(("127.0.0.1", 0)) as index:
        environment = {name: v for name, v in os.environ.items() if name[:4] != "PIP_"}
        environment |= {
            "DRIFTSCOPE_HOME": str(home),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple",
        }
        command = [str(DRIFTSCOPE), "model", "fetch", "smollm2-135m"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            connection, _ = index.accept()
            with connection:
                assert list((home / "models").glob(".smollm2-135m.building-*"))
                process.terminate()
                process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert [path.name for path in (home / "models").iterdir()] == [".smollm2-135m.lock"]
