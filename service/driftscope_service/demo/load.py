"""The recordings into a data folder: runs through the API of a service, reports into its store.

In: the settings of the service. Out: how much is there now. Loading again changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection

from driftscope_probes.progress import Progress, ProgressSink
from driftscope_service.demo import recordings
from driftscope_service.demo.served import DemoError, served
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.record import store_report
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.jobs.store import JobRepository
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings

SAFETENSORS = "application/vnd.safetensors"
#: A step of the recordings takes milliseconds; the first one compiles the comparison.
TIMEOUT_S = 300.0
CREATED = 201


@dataclass(frozen=True, slots=True)
class Loaded:
    runs: int
    steps: int
    reports: int  # new ones


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
    return Loaded(len(recordings.RUNS), steps, reports)


def push_runs(
    client: httpx.Client, progress: ProgressSink, runs: tuple[str, ...] = recordings.RUNS
) -> int:
    """Every step of `runs` over HTTP, in order; the number of steps."""
    pushed = 0
    for number, run in enumerate(runs):
        steps, new = list(recordings.steps_of(run)), False
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
    report = recordings.report(kind, name)
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
