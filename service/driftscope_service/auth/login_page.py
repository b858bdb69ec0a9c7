"""GET and POST /login: a key opens a session of the browser; POST /logout: ends it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.access import Refusal, key_of_text, note_use, refusal
from driftscope_service.auth.audit import Action, Actor, AuditLog, Who
from driftscope_service.auth.guard import WrongKeys
from driftscope_service.auth.key import Scope
from driftscope_service.auth.sessions import OpenedSession, SessionRepository
from driftscope_service.http import session
from driftscope_service.http.errors import request_id
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.store.database import Database

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: A key and a path; what is longer is neither.
MAX_FORM_BYTES = 8192


@router.get(session.LOGIN_PATH)
def login_form(request: Request, next: str = "/") -> Response:
    return _form(request, session.own_path(next))


@router.post(session.LOGIN_PATH)
async def login(request: Request) -> Response:
    fields = parse_qs((await request.body())[:MAX_FORM_BYTES].decode("utf-8", "replace"))
    key = fields.get("key", [""])[0].strip()
    target = session.own_path(fields.get("next", ["/"])[0])
    opened = await run_in_threadpool(_open, request, key)
    if isinstance(opened, Refusal):
        wrong_keys: WrongKeys = request.app.state.wrong_keys
        refused, headers = wrong_keys.slowed(request.scope, opened)
        return _form(request, target, refused, headers)
    response = RedirectResponse(target, 303)
    session.keep(response, request.scope, opened.token, opened.expires_at)
    return response


@router.post(session.LOGOUT_PATH)
def logout(request: Request) -> Response:
    token = session.token(request.scope)
    if token is not None:
        with _database(request).write() as connection:
            SessionRepository(connection).close(token)
    response = RedirectResponse(session.LOGIN_PATH, 303)
    session.forget(response, request.scope)
    return response


def _open(request: Request, given: str) -> OpenedSession | Refusal:
    """Blocking: it writes to the database."""
    database = _database(request)
    key = key_of_text(given, database)
    if isinstance(key, Refusal):
        return key
    refused = refusal(key, Scope.READ)
    if refused is not None:
        return refused
    note_use(database, key)
    before, now = session.token(request.scope), datetime.now(UTC)
    with database.write() as connection:
        sessions = SessionRepository(connection)
        sessions.sweep(now)
        if before is not None:  # of this browser: nobody could end it any more
            sessions.close(before)
        opened = sessions.open(key, now)
        who = Who(Actor.KEY, key.id, request_id(request.scope))
        AuditLog(connection).add(who, Action.LOGGED_IN, f"key {key.id}")
    return opened


def _database(request: Request) -> Database:
    database: Database = request.app.state.service.database
    return database


def _form(
    request: Request,
    target: str,
    refused: Refusal | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    shown: dict[str, Any] = {"target": target, "wrong": None, "slowed": False}
    if refused is not None:
        shown |= {"wrong": refused.detail, "slowed": bool(headers)}
    response = page(
        request,
        "auth/templates/login",
        title="API key",
        section=None,
        status=200 if refused is None else refused.kind.status,
        again=session.has_former_cookie(request.scope),
        **shown,
    )
    response.headers.update(headers or {})
    return response
