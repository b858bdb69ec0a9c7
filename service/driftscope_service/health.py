"""/healthz: the process answers. /readyz: it can also do its work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from driftscope_service.http import problem_kinds
from driftscope_service.http.current_service import current_service
from driftscope_service.http.errors import ServiceError, problems
from driftscope_service.service import Service
from driftscope_service.store import migrate
from driftscope_service.store.identity import StorageMismatch, database_id, stored_id


class HealthBody(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class ReadyBody(BaseModel):
    status: Literal["ready"] = "ready"
    checks: dict[str, str] = Field(description="what was checked, each `ok`")


router = APIRouter(tags=["operations"])
OK = "ok"


@router.get("/healthz")
def healthz() -> HealthBody:
    """The process answers."""
    return HealthBody(version=version("driftscope"))


@router.get("/readyz", responses=problems(problem_kinds.NOT_READY))
def readyz(service: Annotated[Service, Depends(current_service)]) -> ReadyBody:
    """Database, schema, data folder, storage, disk and executor are in order; else 503 with
    `checks`."""
    checks: dict[str, Callable[[Service], str]] = {
        "database": _database,
        "data_dir": _data_dir,
        "storage": _storage,
        "disk": _disk,
        "executor": _executor,
        "scheduler": _scheduler,
        "heartbeat": _heartbeat,
    }
    results = {name: check(service) for name, check in checks.items()}
    wrong = [f"{name}: {result}" for name, result in results.items() if result != OK]
    if wrong:
        raise ServiceError(problem_kinds.NOT_READY, "; ".join(wrong), checks=results)
    return ReadyBody(checks=results)


def _database(service: Service) -> str:
    try:
        with service.database.read() as connection:
            connection.execute(text("SELECT 1 FROM jobs LIMIT 1"))
            revision = migrate.current_revision(connection)
    except OperationalError as error:
        return f"does not answer: {error.orig}"
    newest = migrate.newest_revision()
    return OK if revision == newest else f"schema is {revision}, this version needs {newest}"


def _data_dir(service: Service) -> str:
    try:
        with tempfile.TemporaryFile(dir=service.settings.data_dir):
            return OK
    except OSError as error:
        return f"cannot be written: {error.strerror}"


def _storage(service: Service) -> str:
    """A bucket that cannot be reached, a folder that is no longer mounted, another one's files."""
    try:
        there = stored_id(service.storage)
        with service.database.read() as connection:
            ours = database_id(connection)
    except (OSError, OperationalError, StorageMismatch) as error:
        return f"cannot be read: {error}"
    return OK if there == ours else f"its id is {there}, the database has {ours}"


def _disk(service: Service) -> str:
    try:
        free = shutil.disk_usage(service.settings.data_dir).free
    except OSError as error:
        return f"cannot be measured: {error.strerror}"
    floor = service.settings.min_free_disk_bytes
    return OK if free >= floor else f"{free} bytes free, at least {floor} are needed"


def _executor(service: Service) -> str:
    return OK if service.executor.alive else "a job slot has ended"


def _scheduler(service: Service) -> str:
    return OK if service.scheduler.alive else "the thread of the schedules has ended"


def _heartbeat(service: Service) -> str:
    return OK if service.presence.alive else "the thread of the heartbeat has ended"
