"""The parts of the service that runs work on."""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import Depends
from sqlalchemy import Connection

from driftscope_service.http.current_service import current_service
from driftscope_service.http.errors import not_found
from driftscope_service.runs.drift import RunDrift
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database


class RunsService(Protocol):
    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def run_drift(self) -> RunDrift: ...
    def reports_of_step(self, run: str, step: int) -> list[tuple[str, str]]:
        """Page and sentence of every report that was made of a pushed step, newest first."""
        ...


def known_run(connection: Connection, name: str) -> Run:
    """404 where there is none."""
    found = RunRepository(connection).get(name)
    if found is None:
        raise not_found("run", name)
    return found


CurrentService = Annotated[RunsService, Depends(current_service)]
