"""Loads the recorded demo: pushed steps and reports, through a service on a loopback port.

Steps: RUN.zip with NNNN.safetensors, made by scripts/record_runs.py. Reports: in the folders of
their kinds, made by the commands in docs/demo.md.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Connection

from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.app import create_app
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.record import store_report
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.jobs.store import JobRepository
from driftscope_service.server import listen
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings

FOLDER = files("driftscope_service").joinpath("demo", "recordings")
#: In the order in which the pages list them: the last one loaded comes first.
RUNS = ("wrong-temperature", "stale-weights", "healthy")


def steps_of(run: str) -> Iterator[tuple[int, bytes]]:
    """Number and push body of every step, in order."""
    with FOLDER.joinpath(f"{run}.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            yield int(name.removesuffix(".safetensors")), archive.read(name)


def recorded_report(kind: Kind, name: str) -> dict[str, Any]:
    file = files(kind.package).joinpath("recordings", f"{name}.json")
    loaded = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


START_TIMEOUT_S = 60.0


class DemoError(ProbeError):
    """The recordings cannot be loaded."""


@contextmanager
def served(service: Service, settings: Settings) -> Iterator[str]:
    """The address of the service, which answers until the block ends."""
    listener = listen(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        _wait(server, thread)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise DemoError("the service did not start.", remedy="see the log above.")
        time.sleep(0.02)


SAFETENSORS = "application/vnd.safetensors"
#: A step of the recordings takes milliseconds; the first one compiles the comparison.
TIMEOUT_S = 300.0
CREATED = 201


@dataclass(frozen=True, slots=True)
class Loaded:
    runs: int
    steps: int
    reports: int  # new ones
    said: tuple[str, ...] = ()  # by the last step of each run


def load_demo(settings: Settings, progress: ProgressSink) -> Loaded:
    """Raises DataDirError where a service runs on the folder already."""
    own = settings.model_copy(update={"host": "127.0.0.1", "port": 0, "require_keys": False})
    with open_service(own) as service:
        reports = sum(
            add_report(kind, name, service)
            for kind in service.kinds.values()
            for name in kind.recordings
        )
        with (
            served(service, own) as address,
            httpx.Client(base_url=address, timeout=TIMEOUT_S) as client,
        ):
            steps = push_runs(client, progress)
            said = tuple(last_sentence(client, run) for run in RUNS)
    return Loaded(len(RUNS), steps, reports, said)


def last_sentence(client: httpx.Client, run: str) -> str:
    """What the diagnosis of the run says, from its last step and from all together."""
    series = client.get(f"/v1/runs/{run}/steps", params={"limit": 1}).raise_for_status().json()
    diagnosis = series["diagnosis"]  # null: loaded by an older version
    return f"{run}: {'no diagnosis' if diagnosis is None else diagnosis['sentence']}"


def push_runs(client: httpx.Client, progress: ProgressSink, runs: tuple[str, ...] = RUNS) -> int:
    """Every step of `runs` over HTTP, in order; the number of steps."""
    pushed = 0
    for number, run in enumerate(runs):
        steps, new = list(steps_of(run)), False
        for index, (step, body) in enumerate(steps):
            done = (number + index / len(steps)) / len(runs)
            progress(Progress("pushing", done, f"{run}, step {step}"))
            answer = client.post(
                f"/v1/runs/{run}/steps/{step}/logprobs",
                content=body,
                headers={"content-type": SAFETENSORS},
            )
            if not answer.is_success:
                raise DemoError(
                    f"step {step} of {run} was refused: {answer.json().get('detail')}.",
                    remedy="load the demo into a data folder of its own (--data-dir).",
                )
            pushed += 1
            new |= answer.status_code == CREATED
        if new:
            # A recording sends no more steps, which must not raise an alert.
            client.put(f"/v1/runs/{run}", json={"state": "finished"}).raise_for_status()
    progress(Progress("done", 1.0))
    return pushed


def add_report(kind: Kind, name: str, service: Service) -> bool:
    """False if the store already has one of its kind (for a night: this very one)."""
    report = recorded_report(kind, name)
    with service.database.read() as connection:
        if kind.recorded is None:
            there = ReportRepository(connection).latest(kind.name) is not None
        else:
            there = kind.recorded(connection, report)
    if there:
        return False
    model = _model(report)

    def job_of(connection: Connection) -> str:
        jobs = JobRepository(connection)
        return jobs.add_succeeded(kind.name, model, {"recorded": True}).id

    with tempfile.TemporaryDirectory(dir=service.settings.data_dir) as workdir:
        store_report(
            report,
            kind=kind,
            model=model,
            workdir=Path(workdir),
            job_of=job_of,
            database=service.database,
            files=service.report_files,
        )
    return True


def _model(report: Mapping[str, Any]) -> str | None:
    model = report.get("model")
    return None if model is None else str(model["name"])
