"""/v1/schedules: what the service starts by itself. Changing them needs the scope admin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from driftscope_service.auth.audit import Action, AuditLog, CurrentWho, Who
from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import InvalidField, not_found, problems
from driftscope_service.schedule.store import (
    MAX_CRON_LENGTH,
    CronError,
    Missed,
    Schedule,
    ScheduleRepository,
    next_moment,
)
from driftscope_service.settings import NAME


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
    job: Any  # of one of the registered kinds: schedule_request
    missed: Missed = Field(
        default=Missed.ONCE,
        description="moments that passed while the service was down: made up for once, or skipped",
    )


def schedule_request(kinds: Iterable[Kind]) -> type[ScheduleRequest]:
    """With a job of one of the kinds that can be scheduled."""
    jobs = [_scheduled(kind) for kind in reversed(list(kinds)) if kind.schedulable]
    one_of: Any = Annotated[reduce(or_, jobs), Field(discriminator="kind")]
    return create_model(
        ScheduleRequest.__name__,
        __base__=ScheduleRequest,
        __doc__=ScheduleRequest.__doc__,
        job=(one_of, ...),
    )


def _scheduled(kind: Kind) -> type[BaseModel]:
    fields: dict[str, Any] = {"kind": (Literal[kind.name], ...)}
    if kind.request is not None:
        fields["request"] = (kind.request, ...)
    return create_model(
        f"Scheduled{kind.name.capitalize()}",
        __config__=ConfigDict(extra="forbid"),
        **fields,
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
    def of(schedule: Schedule, kinds: Mapping[str, Kind]) -> ScheduleBody:
        job = schedule.last_job_id
        return ScheduleBody(
            name=schedule.name,
            cron=schedule.cron,
            kind=schedule.kind,
            # Leave out what the client did not give: the operator's paths are not for clients.
            request={} if kinds[schedule.kind].request is None else schedule.request["request"],
            missed=schedule.missed,
            next_at=schedule.next_at,
            last_at=schedule.last_at,
            last_job=None if job is None else f"/v1/jobs/{job}",
            note=schedule.note,
        )


#: More than anyone reads through.
MOST_SCHEDULES = 100
Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$", max_length=64)]


def schedule_routes(kinds: Iterable[Kind]) -> APIRouter:
    router = APIRouter(prefix="/v1/schedules", tags=["nightly"])
    missing = problems(problem_kinds.NOT_FOUND, problem_kinds.INVALID_REQUEST)
    router.get("")(list_schedules)
    router.get("/{name}", responses=missing)(get_schedule)

    def put(
        name: Name, asked: Any, response: Response, service: CurrentService, who: CurrentWho
    ) -> ScheduleBody:
        return put_schedule(name, asked, response, service, who)

    # FastAPI reads the body's model here.
    put.__annotations__["asked"] = schedule_request(kinds)
    router.put(
        "/{name}",
        name=put_schedule.__name__,
        description=put_schedule.__doc__,
        responses={
            201: {"model": ScheduleBody, "description": "The schedule is new"},
            **problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
        },
    )(put)
    router.delete("/{name}", status_code=204, responses=missing)(delete_schedule)
    return router


def list_schedules(service: CurrentService) -> list[ScheduleBody]:
    """Every schedule, by name."""
    with service.database.read() as connection:
        schedules = ScheduleRepository(connection).all()
    return [ScheduleBody.of(schedule, service.kinds) for schedule in schedules]


def get_schedule(name: Name, service: CurrentService) -> ScheduleBody:
    """One schedule: when it is due next, and what became of the last moment."""
    with service.database.read() as connection:
        schedule = ScheduleRepository(connection).get(name)
    if schedule is None:
        raise not_found("schedule", name)
    return ScheduleBody.of(schedule, service.kinds)


def put_schedule(
    name: str, asked: ScheduleRequest, response: Response, service: ExperimentsService, who: Who
) -> ScheduleBody:
    """Make or replace a schedule. Its job is checked now, as if it were started."""
    kind = service.kinds[asked.job.kind]
    request = kind.job(getattr(asked.job, "request", None), service.settings)
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
            kind=kind.name,
            request=request,
            missed=asked.missed,
            next_at=next_at,
        )
        stored = schedules.get(name)
        AuditLog(connection).add(
            who,
            Action.SCHEDULE_CHANGED,
            f"schedule {name}",
            cron=asked.cron,
            kind=kind.name,
            was="new" if new else "there already",
        )
    assert stored is not None
    if new:
        response.status_code = 201
    return ScheduleBody.of(stored, service.kinds)


def delete_schedule(name: Name, service: CurrentService, who: CurrentWho) -> None:
    """A job that it has started goes on."""
    with service.database.write() as connection:
        if not ScheduleRepository(connection).remove(name):
            raise not_found("schedule", name)
        AuditLog(connection).add(who, Action.SCHEDULE_DELETED, f"schedule {name}")
