"""The parts of the service that experiments work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from fastapi import Depends

from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.store import ReportFiles
from driftscope_service.http.current_service import current_service
from driftscope_service.jobs.current import JobsService


class ExperimentsService(JobsService, Protocol):
    @property
    def report_files(self) -> ReportFiles: ...
    @property
    def kinds(self) -> Mapping[str, Kind]: ...


CurrentService = Annotated[ExperimentsService, Depends(current_service)]
