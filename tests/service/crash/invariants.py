"""What must hold of a service that was killed, as a list of sentences about what does not."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from tests.service.crash.load import Acknowledged

from driftscope_service.store.database import Database
from driftscope_service.store.storage.opening import open_storage
from driftscope_service.store.storage.sweep import sweep

PAGE: Final = 100
#: The jobs that were accepted run one after another, each for a fraction of a second.
JOBS_WITHIN_S: Final = 300.0
UNFINISHED: Final = ("queued", "running")


def lost_steps(client: httpx.Client, acknowledged: Acknowledged) -> Iterator[str]:
    """Every acknowledged step is there with the bytes that were acknowledged."""
    for (run, step), digest in sorted(acknowledged.steps.items()):
        answer = client.get(f"/v1/runs/{run}/steps/{step}")
        if answer.status_code != httpx.codes.OK:
            yield f"step {step} of {run} was acknowledged and is lost: {answer.status_code}"
        elif answer.json()["content_sha256"] != digest:
            yield f"step {step} of {run} was acknowledged with other bytes"
    for run, step in sorted(acknowledged.sharded):
        answer = client.get(f"/v1/runs/{run}/steps/{step}")
        if answer.status_code != httpx.codes.OK:
            yield f"sharded step {step} of {run} was acknowledged and is lost"


def half_steps(client: httpx.Client, runs: set[str]) -> Iterator[str]:
    """Whatever the series shows can be read whole, and once."""
    for run in sorted(runs):
        seen: list[int] = []
        for point in series(client, run):
            seen.append(point["step"])
            whole = client.get(f"/v1/runs/{run}/steps/{point['step']}")
            if whole.status_code != httpx.codes.OK or "comparison" not in whole.json():
                yield f"step {point['step']} of {run} is in the series and cannot be read"
        if len(set(seen)) != len(seen):
            yield f"the series of {run} has a step twice"


def series(client: httpx.Client, run: str) -> Iterator[dict[str, Any]]:
    after: int | None = -1
    while after is not None:
        answer = client.get(f"/v1/runs/{run}/steps", params={"limit": PAGE, "after": after})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return
        answer.raise_for_status()
        yield from answer.json()["steps"]
        after = answer.json()["next_after"]


def unfinished_jobs(client: httpx.Client, acknowledged: Acknowledged) -> Iterator[str]:
    """Every accepted job has run to its end, and left one report."""
    deadline = time.monotonic() + JOBS_WITHIN_S
    for job_id in acknowledged.jobs:
        job = client.get(f"/v1/jobs/{job_id}").json()
        while job.get("state") in UNFINISHED and time.monotonic() < deadline:
            time.sleep(0.1)
            job = client.get(f"/v1/jobs/{job_id}").json()
        if job.get("state") != "succeeded":
            yield f"{job_id} was accepted and is {job.get('state')}: {job.get('error')}"
        elif client.get(job["links"]["report"]).status_code != httpx.codes.OK:
            yield f"{job_id} succeeded and its report cannot be read"


def two_owners(locks: Path) -> Iterator[str]:
    """The probe of a job notes when it finds that another process works for the same job."""
    for note in sorted(locks.glob("*.twice")):
        yield f"{note.stem} was run by two owners at once: {note.read_text(encoding='utf-8')}"


def leaked_files(storage: Path, database: Path) -> list[str]:
    """Of SQLite: files of steps that no row names, once nothing is under way."""
    with closing(sqlite3.connect(database)) as connection:
        named: set[str] = set()
        for raw, tokens in connection.execute("SELECT raw_files, tokens_file FROM steps"):
            named |= {one["file"] for one in _json(raw)} | {tokens}
        named |= {file for (file,) in connection.execute("SELECT file FROM shards")}
    return sorted(path.name for path in storage.glob("steps/*") if path.name not in named)


def left_after_a_sweep(data_dir: Path) -> list[str]:
    """What no row names although the sweep has run, as it does a day after a kill."""
    path = data_dir / "driftscope.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM leases")
    database = Database(path)
    try:
        sweep(database, open_storage("", data_dir), "instance_of_a_test", age=timedelta(0))
    finally:
        database.dispose()
    return leaked_files(data_dir, path)


def _json(text: str | None) -> list[Mapping[str, str]]:
    return [] if text is None else list(json.loads(text) or [])
