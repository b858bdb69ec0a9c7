"""Who created, revoked, deleted, cancelled or changed something: the audit log.

An entry is written in the transaction of what it tells of, so that neither is there alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from sqlalchemy import Connection, insert, select

from driftscope_service.http.errors import request_id
from driftscope_service.http.log_format import KEY_ID
from driftscope_service.store.tables import TARGET_LENGTH, audit_log


class Actor(StrEnum):
    KEY = "key"
    ANYONE = "anyone"  # keys are not required here
    COMMAND_LINE = "command_line"  # on the machine of the data folder
    SERVICE = "service"  # a schedule, retention


class Action(StrEnum):
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_ROTATED = "key.rotated"
    LOGGED_IN = "session.created"
    RUN_DELETED = "run.deleted"
    STEP_DELETED = "step.deleted"
    REPORT_DELETED = "report.deleted"
    JOB_STARTED = "job.started"
    JOB_CANCELLED = "job.cancelled"
    JOB_DELETED = "job.deleted"
    SCHEDULE_CHANGED = "schedule.changed"
    SCHEDULE_DELETED = "schedule.deleted"
    BACKUP_MADE = "backup.made"
    BACKUP_RESTORED = "backup.restored"
    STORAGE_ADOPTED = "storage.adopted"
    RETENTION = "retention.applied"


@dataclass(frozen=True, slots=True)
class Who:
    actor: Actor
    key_id: str | None = None  # None: the actor is no key
    request_id: str | None = None  # None: it was no request

    @property
    def words(self) -> str:
        """For a line of the log."""
        key = "" if self.key_id is None else f" with key {self.key_id}"
        return f"{self.request_id or self.actor.value}{key}"


COMMAND_LINE: Final = Who(Actor.COMMAND_LINE)
SERVICE: Final = Who(Actor.SERVICE)


def who(request: Request) -> Who:
    key_id = request.scope.get("state", {}).get(KEY_ID)
    actor = Actor.ANYONE if key_id is None else Actor.KEY
    return Who(actor, key_id, request_id(request.scope))


CurrentWho = Annotated[Who, Depends(who)]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    number: int
    at: datetime
    actor: Actor
    key_id: str | None
    action: str
    target: str
    detail: dict[str, Any] | None
    request_id: str | None


class AuditLog:
    """Works within the transaction of `connection`; `add` needs a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, who: Who, action: Action, target: str, **detail: str | int | None) -> None:
        """`target`: what it was done to, as `run r1`."""
        self._connection.execute(
            insert(audit_log).values(
                at=datetime.now(UTC),
                actor=who.actor,
                key_id=who.key_id,
                action=action,
                target=target[:TARGET_LENGTH],
                detail=detail or None,
                request_id=who.request_id,
            )
        )

    def page(self, limit: int, *, before: int | None = None) -> Sequence[AuditEntry]:
        """Newest first; `before` is the number of the previous page's last entry."""
        statement = select(audit_log).order_by(audit_log.c.number.desc()).limit(limit)
        if before is not None:
            statement = statement.where(audit_log.c.number < before)
        return [
            AuditEntry(**{**row._mapping, "actor": Actor(row.actor)})
            for row in self._connection.execute(statement)
        ]
