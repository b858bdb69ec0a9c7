"""The service as a real process: how it starts, how it ends, what it refuses."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import uvicorn
from typer.testing import CliRunner

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.access import NoKeyError
from driftscope_service.cli import keys
from driftscope_service.cli.main import serve
from driftscope_service.server import ListenError, run_server
from driftscope_service.service import DataDirError, open_service
from driftscope_service.settings import SettingsError

from ...service_process import ServiceProcess, service_process

ProcessesOf = Callable[[str], list[int]]
ROOT = Path(__file__).parents[3]
PATIENCE_S = 30.0
SERVER = """
import sys
from driftscope_service.server import run_server
from driftscope_service.settings import load_settings
run_server(load_settings(port=0, data_dir=sys.argv[1]), probe_module="quick_probe")
"""
SLEEPING = {
    "model": "tiny-random-llama",
    "prompts": ["family"],
    "engine_dtypes": ["bf16"],
    "trainer_dtypes": ["bf16"],
}

pytestmark = pytest.mark.usefixtures("clean_environment")
app = typer.Typer()
app.command()(serve)


@contextmanager
def live_server(data_dir: Path) -> Iterator[tuple[ServiceProcess, httpx.Client]]:
    paths = [os.environ["PYTHONPATH"], str(ROOT / "service"), str(ROOT / "kernels")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", SERVER, str(data_dir)]
    with (
        service_process(command, environment) as started,
        httpx.Client(base_url=started.address, timeout=PATIENCE_S) as client,
    ):
        yield started, client
        # What a test leaves running was not to be waited for.
        started.process.kill()


def start_family(client: httpx.Client, data_dir: Path) -> tuple[str, int]:
    """A running job and its grandchild, which ignores SIGTERM."""
    job_id = client.post("/v1/probes/paired", json=SLEEPING).json()["id"]
    note = data_dir / "jobs" / job_id / "attempt-1" / "grandchild.log.txt"
    deadline = time.monotonic() + PATIENCE_S
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job_id, int(note.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_service_leaves_no_probe(
    number: signal.Signals,
    make_settings: Any,
    is_gone: Callable[[int], bool],
    processes_of: ProcessesOf,
) -> None:
    settings = make_settings()
    with live_server(settings.data_dir) as (started, client):
        job_id, grandchild = start_family(client, settings.data_dir)
        assert client.get("/v1/jobs").status_code == 200
        started.process.send_signal(number)
        started.process.wait(PATIENCE_S)
        assert is_gone(grandchild)
        assert processes_of(job_id) == []
        log = started.log
    assert "GET /v1/jobs" in log and "Application shutdown complete" in log
    assert f"job {job_id} will be tried again: the service stopped" in log


def test_a_killed_service_is_put_in_order_by_the_next_start(
    make_settings: Any,
    eventually: Callable[..., None],
    is_gone: Callable[[int], bool],
    processes_of: ProcessesOf,
) -> None:
    settings = make_settings()
    with live_server(settings.data_dir) as (started, client):
        job_id, grandchild = start_family(client, settings.data_dir)
        accepted = {**SLEEPING, "prompts": ["succeed"]}
        waiting = client.post("/v1/probes/paired", json=accepted).json()["id"]
        probe = next(pid for pid in processes_of(job_id) if pid != grandchild)
        started.process.send_signal(signal.SIGKILL)
        started.process.wait(PATIENCE_S)
        eventually(lambda: is_gone(probe))  # the kernel ends it with its parent
    assert not is_gone(grandchild)
    with live_server(settings.data_dir) as (started, client):
        assert is_gone(grandchild)
        eventually(lambda: client.get(f"/v1/jobs/{job_id}").json()["state"] == "running")
        killed, again = client.get(f"/v1/jobs/{job_id}").json()["attempts"]
        assert (killed["outcome"], again["outcome"]) == ("stopped", None)
        assert killed["reason"]["error"] == "ServiceStopped"
        client.post(f"/v1/jobs/{job_id}/cancel")
        # What was accepted before the kill is carried out after it.
        eventually(lambda: client.get(f"/v1/jobs/{waiting}").json()["state"] == "succeeded")
        assert len(client.get(f"/v1/jobs/{waiting}").json()["attempts"]) == 1


def test_a_data_folder_has_one_service(make_settings: Any) -> None:
    settings = make_settings()
    with open_service(settings):
        with pytest.raises(DataDirError, match="another driftscope service uses"):
            with open_service(settings):
                pass
    with open_service(settings):  # free again
        pass


def test_a_data_folder_that_cannot_be_made_is_named(make_settings: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="cannot be used"):
        with open_service(make_settings(data_dir=tmp_path / "file" / "data")):
            pass


def test_the_data_folder_is_private(make_settings: Any) -> None:
    settings = make_settings()
    with open_service(settings):
        assert settings.data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("host", ["example.org", "", "localhost.evil.example", "1.2.3"])
def test_a_name_is_no_address_to_listen_on(host: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    done = CliRunner().invoke(app, ["--host", host, "--data-dir", str(data_dir)])
    assert isinstance(done.exception, SettingsError)
    assert "not an IP address" in str(done.exception)
    assert not data_dir.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_reachable_address_is_refused_without_a_key(host: str, tmp_path: Path) -> None:
    arguments = ["--host", host, "--port", "0", "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, NoKeyError)
    assert "driftscope keys create" in done.exception.remedy


def test_a_reachable_service_with_a_key(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    arguments = ["create", "--name", "a", "--scope", "read", "--data-dir", str(settings.data_dir)]
    token = CliRunner().invoke(keys.app, arguments).stdout.strip()
    monkeypatch.setenv("DRIFTSCOPE_HOST", "0.0.0.0")
    with live_server(settings.data_dir) as (started, client):
        with_key = {"authorization": f"Bearer {token}"}
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers=with_key).status_code == 200
        assert client.post("/v1/jobs/a/cancel", headers=with_key).status_code == 403
        renamed = {**with_key, "host": "evil.example"}
        assert client.get("/v1/jobs", headers=renamed).status_code == 400
        started.process.send_signal(signal.SIGTERM)
        started.process.wait(PATIENCE_S)
        log = started.log
    assert "GET /v1/jobs" in log and "401" in log
    assert token.rsplit("_", 1)[1] not in log


def test_a_port_in_use_is_named(make_settings: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port}") as error:
            run_server(make_settings(port=port))
    assert isinstance(error.value, ProbeError)
    assert "--port" in error.value.remedy


def test_requests_find_the_memory_settled(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: kept.append(gc.get_freeze_count()))
    before = gc.get_freeze_count()
    try:
        run_server(make_settings(port=0))
    finally:
        gc.unfreeze()
    assert kept and kept[0] > before + 100_000  # the imports alone


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_PROT", "80")
    done = CliRunner().invoke(app, [])
    assert "DRIFTSCOPE_PROT" in str(done.exception)
