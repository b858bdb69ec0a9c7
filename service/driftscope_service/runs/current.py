"""The parts of the service that runs work on."""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import Depends

from driftscope_service.http.current_service import current_service
from driftscope_service.runs.drift import RunDrift
from driftscope_service.runs.ingest.intake import Intake
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


CurrentService = Annotated[RunsService, Depends(current_service)]
