"""The real service as a process, loaded with the recordings, and a Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from driftscope_service.demo.load import push_runs
from driftscope_service.settings import PREFIX

from ...service_process import service_process

ROOT = Path(__file__).parents[3]
DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
RULES = ROOT / "dashboards" / "prometheus" / "rules"
PATIENCE_S = 120.0
#: Scrapes and rules run every second, and the rules' minutes count as seconds.
TICK = "1s"
MINUTES = re.compile(r"\b(\d+)m\b")


@dataclass(frozen=True)
class Prometheus:
    client: httpx.Client

    def query(self, expr: str) -> list[dict[str, Any]]:
        answer = self.client.get("/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", (expr, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return found


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


@pytest.fixture(name="eventually", scope="session")
def eventually_fixture() -> Callable[[Callable[[], Any]], Any]:
    return eventually


@contextmanager
def serving(data_dir: Path) -> Iterator[httpx.Client]:
    """`driftscope serve` as a user starts it, on a free port."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    command = [str(DRIFTSCOPE), "serve", "--port", "0", "--data-dir", str(data_dir)]
    with (
        service_process(command, environment | {"OMP_NUM_THREADS": "1"}) as started,
        httpx.Client(base_url=started.address, timeout=PATIENCE_S) as client,
    ):
        yield client


@contextmanager
def scraping(target: httpx.URL, folder: Path) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not on PATH (Debian package: prometheus)")
    rules = folder / "rules"
    rules.mkdir(parents=True)
    for file in RULES.glob("*.yml"):
        (rules / file.name).write_text(MINUTES.sub(r"\1s", file.read_text()))
    config = {
        "global": {"scrape_interval": TICK, "evaluation_interval": TICK,
                   "external_labels": {"driftscope_url": str(target).rstrip("/")}},
        "rule_files": [str(rules / "*.yml")],
        "scrape_configs": [
            {"job_name": "driftscope",
             "static_configs": [{"targets": [f"{target.host}:{target.port}"]}]},
        ],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "prometheus.log").open("w")
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            prometheus = Prometheus(client)
            eventually(lambda: _ready(client))
            yield prometheus
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Observed:
    service: httpx.Client
    prometheus: Prometheus


SMALL_JOB = {
    "targets": ["driftscope"],
    "ops": ["rms_norm"],
    "dtypes": ["fp32"],
    "threads": [1],
    "quick": True,
}


@pytest.fixture(scope="package")  # no longer: scrapes of every second take a core's tenth
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Everything that `driftscope demo load` loads, scraped for some seconds."""
    folder = tmp_path_factory.mktemp("observed")
    data_dir = folder / "data"
    loaded = subprocess.run(
        [str(DRIFTSCOPE), "demo", "load", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
    )
    assert loaded.returncode == 0, loaded.stderr
    with serving(data_dir) as service, scraping(service.base_url, folder) as prometheus:
        eventually(lambda: prometheus.query("driftscope_run_drift_state == 1"))
        # Counters need two scrapes for a rate; one more push makes each of them move.
        body = json.dumps({"rollout_logprobs": [[-1.0]], "trainer_logprobs": [[-1.0]]})
        kind = {"content-type": "application/json"}
        for step in (1, 2):
            service.post(f"/v1/runs/live/steps/{step}/logprobs", content=body, headers=kind)
        service.post("/v1/runs/live/steps/3/logprobs", content="{", headers=kind)
        eventually(lambda: prometheus.query("rate(driftscope_ingest_requests_total[10s]) > 0"))
        # What the demo loads was done elsewhere; this takes its time here.
        service.post("/v1/probes/kernels", json=SMALL_JOB).raise_for_status()
        eventually(lambda: prometheus.query("driftscope_job_last_duration_seconds"))
        yield Observed(service, prometheus)


@pytest.fixture(scope="package")
def replayed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[tuple[str, ...]], Observed]]:
    """An empty machine: service and Prometheus are up, then recorded runs are pushed."""
    folder = tmp_path_factory.mktemp("replayed")
    with serving(folder / "data") as service, scraping(service.base_url, folder) as prometheus:

        def replay(runs: tuple[str, ...]) -> Observed:
            push_runs(service, lambda _: None, runs)
            return Observed(service, prometheus)

        yield replay
