"""The parts of the service that jobs work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from fastapi import Depends

from driftscope_service.http.current_service import current_service
from driftscope_service.jobs.executor import JobExecutor
from driftscope_service.jobs.job import JobKind
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database


class JobsService(Protocol):
    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def executor(self) -> JobExecutor: ...
    @property
    def kinds(self) -> Mapping[str, JobKind]: ...


CurrentService = Annotated[JobsService, Depends(current_service)]
