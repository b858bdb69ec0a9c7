"""/v1/schedules: what the service starts by itself. Changing them needs the scope admin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.determinism.job import DeterminismProbeRequest
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.kernels.job import KernelsProbeRequest
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.http import problem_kinds
from driftscope_service.http.current_service import CurrentService
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.http.problems import problems
from driftscope_service.schedule.schedule import (
    MAX_CRON_LENGTH,
    CronError,
    Missed,
    Schedule,
    next_moment,
)
from driftscope_service.schedule.store import ScheduleRepository
from driftscope_service.settings import NAME, Settings


class ScheduledNightly(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["nightly"]


class ScheduledDeterminism(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["determinism"]
    request: DeterminismProbeRequest


class ScheduledKernels(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["kernels"]
    request: KernelsProbeRequest


class ScheduleRequest(BaseModel):
    """What to start, and when."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"cron": "30 3 * * *", "job": {"kind": "nightly"}}]},
    )

    cron: str = Field(
        min_length=9,
        max_length=MAX_CRON_LENGTH,
        description="minute, hour, day, month, weekday; UTC",
    )
    job: Annotated[
        ScheduledNightly | ScheduledDeterminism | ScheduledKernels, Field(discriminator="kind")
    ]
    missed: Missed = Field(
        default=Missed.ONCE,
        description="moments that passed while the service was down: made up for once, or skipped",
    )


class ScheduleBody(BaseModel):
    name: str
    cron: str
    kind: str
    request: dict[str, Any] = Field(description="of the job; empty for a night")
    missed: Missed
    next_at: datetime
    last_at: datetime | None = Field(description="the last moment that was due")
    last_job: str | None = Field(description="path of the job that it last started")
    note: str | None = Field(description="what became of the last moment")

    @staticmethod
    def of(schedule: Schedule) -> ScheduleBody:
        job = schedule.last_job_id
        night = schedule.kind == "nightly"
        return ScheduleBody(
            name=schedule.name,
            cron=schedule.cron,
            kind=schedule.kind,
            # Of a night: paths of the operator, which are no business of a client.
            request={} if night else schedule.request["request"],
            missed=schedule.missed,
            next_at=schedule.next_at,
            last_at=schedule.last_at,
            last_job=None if job is None else f"/v1/jobs/{job}",
            note=schedule.note,
        )


#: More than anyone reads through.
MOST_SCHEDULES = 100
router = APIRouter(prefix="/v1/schedules", tags=["nightly"])
Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$", max_length=64)]


@router.get("")
def list_schedules(service: CurrentService) -> list[ScheduleBody]:
    """Every schedule, by name."""
    with service.database.read() as connection:
        return [ScheduleBody.of(schedule) for schedule in ScheduleRepository(connection).all()]


@router.get("/{name}", responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST))
def get_schedule(name: Name, service: CurrentService) -> ScheduleBody:
    """One schedule: when it is due next, and what became of the last moment."""
    with service.database.read() as connection:
        schedule = ScheduleRepository(connection).get(name)
    if schedule is None:
        raise not_found("schedule", name)
    return ScheduleBody.of(schedule)


@router.put(
    "/{name}",
    responses={
        201: {"model": ScheduleBody, "description": "The schedule is new"},
        **problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
    },
)
def put_schedule(
    name: Name, asked: ScheduleRequest, response: Response, service: CurrentService
) -> ScheduleBody:
    """Make or replace a schedule. Its job is checked now, as if it were started."""
    kind, request = _job(asked, service.settings)
    try:
        next_at = next_moment(asked.cron, datetime.now(UTC))
    except CronError as error:
        raise InvalidField("/cron", str(error), remedy="correct the expression.") from None
    with service.database.write() as connection:
        schedules = ScheduleRepository(connection)
        if schedules.get(name) is None and len(schedules.all()) >= MOST_SCHEDULES:
            raise InvalidField(
                "/name", f"there are {MOST_SCHEDULES} schedules already", remedy="remove one."
            )
        new = schedules.put(
            name,
            cron=asked.cron,
            kind=kind,
            request=request,
            missed=asked.missed,
            next_at=next_at,
        )
        stored = schedules.get(name)
    assert stored is not None
    if new:
        response.status_code = 201
    return ScheduleBody.of(stored)


@router.delete(
    "/{name}",
    status_code=204,
    responses=problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST),
)
def delete_schedule(name: Name, service: CurrentService) -> None:
    """A job that it has started goes on."""
    with service.database.write() as connection:
        if not ScheduleRepository(connection).remove(name):
            raise not_found("schedule", name)


def _job(asked: ScheduleRequest, settings: Settings) -> tuple[str, dict[str, Any]]:
    job = asked.job
    if isinstance(job, ScheduledKernels):
        return kernels_job.KIND, kernels_job.probe_request(job.request, settings)
    if isinstance(job, ScheduledDeterminism):
        return determinism_job.KIND, determinism_job.probe_request(job.request, settings)
    return nightly_job.KIND, nightly_job.probe_request(settings)
