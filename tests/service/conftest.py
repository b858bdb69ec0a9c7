"""A whole service on a temporary folder: real database, real executor, probes as real processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
import uvicorn
from starlette.testclient import TestClient

from driftscope_service.app import create_app
from driftscope_service.jobs.probe_process import JOB_VARIABLE
from driftscope_service.server import listen
from driftscope_service.service import Service, open_service
from driftscope_service.settings import PREFIX, Settings

QUICK_PROBE = "quick_probe"
ROOT = Path(__file__).parents[2]
CHILDREN = Path(__file__).parent / "jobs" / "children"
#: Nothing here takes longer than a start of Python; a busy machine may be ten times slower.
PATIENCE_S = 30.0
MODEL = "tiny-random-llama"


class MakeSettings(Protocol):
    def __call__(self, **given: Any) -> Settings: ...


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's; children find our probe."""
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHILDREN), str(ROOT / "probes")]))


@pytest.fixture
def make_settings(clean_environment: None, tmp_path: Path) -> MakeSettings:
    def make(**given: Any) -> Settings:
        return Settings(**{"data_dir": tmp_path / "data", **given})

    return make


class Running:
    """A service that runs, a client of it, and the few steps that tests repeat."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service = service
        self.client = client

    @property
    def data_dir(self) -> Path:
        return self.service.settings.data_dir

    def post(self, act: str, **fields: Any) -> Any:
        body = {
            "model": MODEL,
            "prompts": [act],
            "engine_dtypes": ["bf16"],
            "trainer_dtypes": ["bf16"],
            **fields,
        }
        return self.client.post("/v1/probes/paired", json=body)

    def start(self, act: str, **fields: Any) -> str:
        response = self.post(act, **fields)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return body

    def wait(self, job_id: str, *states: str) -> dict[str, Any]:
        """Until the job is in one of `states`, by default any final one."""
        wanted = states or ("succeeded", "failed", "cancelled")
        eventually(lambda: self.job(job_id)["state"] in wanted)
        return self.job(job_id)

    def finished_report(self, act: str = "succeed", **fields: Any) -> str:
        job = self.wait(self.start(act, **fields))
        assert job["state"] == "succeeded", job
        return str(job["links"]["report"].rsplit("/", 1)[1])


class Run(Protocol):
    def __call__(self, **settings: Any) -> AbstractContextManager[Running]: ...


@pytest.fixture
def run_service(make_settings: MakeSettings) -> Run:
    """As a context manager, for tests that start the service more than once."""

    @contextmanager
    def run(**given: Any) -> Iterator[Running]:
        with open_service(make_settings(**given), probe_module=QUICK_PROBE) as service:
            # A bug must arrive as a response, as it does for a real client.
            client = TestClient(
                create_app(service),
                base_url="http://127.0.0.1:8321",
                raise_server_exceptions=False,
            )
            with client:
                yield Running(service, client)

    return run


@pytest.fixture
def running(run_service: Run) -> Iterator[Running]:
    with run_service() as running:
        yield running


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], None]:
    return eventually


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Whether a process has ended; a zombie that nobody has collected yet counts."""

    def gone(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    return gone


@pytest.fixture
def url(running: Running, make_settings: MakeSettings) -> Iterator[str]:
    """The service of `running`, reachable over a real port as well."""
    listener = listen(make_settings(port=0))
    config = uvicorn.Config(create_app(running.service), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def processes_of() -> Callable[[str], list[int]]:
    """Every process that carries the mark of a job."""

    def find(job_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(JOB_VARIABLE) == job_id:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    return find
