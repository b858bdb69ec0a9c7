"""GET /v1/audit and the page /audit: who created, revoked, deleted, cancelled or changed what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from driftscope_service.auth.audit import Actor, AuditEntry, AuditLog
from driftscope_service.http import paging, problem_kinds
from driftscope_service.http.current_service import current_service
from driftscope_service.http.errors import problems
from driftscope_service.http.paging import Cursor, Limit
from driftscope_service.pages.navigation import with_query
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.store.database import Database

PAGE_SIZE: Final = 50


class AuditService(Protocol):
    @property
    def database(self) -> Database: ...


CurrentService = Annotated[AuditService, Depends(current_service)]


class AuditEntryBody(BaseModel):
    at: datetime
    actor: Actor = Field(
        description="`key`; `anyone`: a request where no key is required; `command_line`: on the "
        "machine of the data folder; `service`: a schedule, retention"
    )
    key_id: str | None = Field(description="of the key, where the actor is one")
    action: str = Field(description="what was done, as `run.deleted`", examples=["run.deleted"])
    target: str = Field(description="what it was done to", examples=["run my-run"])
    detail: dict[str, Any] | None = Field(description="what else there is to say of it")
    request_id: str | None = Field(description="of the request; null: it was none")

    @staticmethod
    def of(entry: AuditEntry) -> AuditEntryBody:
        return AuditEntryBody(
            at=entry.at,
            actor=entry.actor,
            key_id=entry.key_id,
            action=entry.action,
            target=entry.target,
            detail=entry.detail,
            request_id=entry.request_id,
        )


class AuditPage(BaseModel):
    entries: list[AuditEntryBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


router = APIRouter(prefix="/v1/audit", tags=["operations"])
page_router = APIRouter(prefix="/audit", include_in_schema=False, route_class=PageRoute)


@router.get("", responses=problems(problem_kinds.INVALID_REQUEST))
def list_audit_entries(
    service: CurrentService, limit: Limit = 20, cursor: Cursor = None
) -> AuditPage:
    """Who created, revoked, deleted, cancelled or changed something, newest first. Needs the scope
    admin."""
    entries, next_cursor = _entries(service, limit, paging.before(cursor))
    return AuditPage(
        entries=[AuditEntryBody.of(entry) for entry in entries], next_cursor=next_cursor
    )


@page_router.get("")
def get_audit_page(request: Request, service: CurrentService, cursor: Cursor = None) -> Response:
    before = paging.before(cursor, remedy=paging.FIRST_PAGE)
    entries, next_cursor = _entries(service, PAGE_SIZE, before)
    return page(
        request,
        "auth/templates/audit",
        title="Audit log",
        section="audit",
        rows=[AuditRow.of(entry) for entry in entries],
        cursor=cursor,
        earlier=None if next_cursor is None else with_query("/audit", cursor=next_cursor),
    )


def _entries(
    service: AuditService, limit: int, before: int | None
) -> tuple[Sequence[AuditEntry], str | None]:
    with service.database.read() as connection:
        # One more than is shown tells whether there is a next page.
        found = AuditLog(connection).page(limit + 1, before=before)
    return paging.cut(found, limit, lambda entry: entry.number)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry in words, for people."""

    at: datetime
    who: str
    action: str
    target: str
    detail: str
    request_id: str | None

    @staticmethod
    def of(entry: AuditEntry) -> AuditRow:
        details = entry.detail or {}
        told = [(name, value) for name, value in details.items() if value is not None]
        return AuditRow(
            at=entry.at,
            who=who_words(entry),
            action=entry.action,
            target=entry.target,
            detail=", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in told),
            request_id=entry.request_id,
        )


def who_words(entry: AuditEntry) -> str:
    if entry.actor is Actor.KEY:
        return f"key {entry.key_id}"
    return entry.actor.value.replace("_", " ")
