"""Who may do what: keys against scopes, and the guard that asks on every request."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import KeyText, Scope, allows, parse_key, required_scope
from driftscope_service.auth.store import ApiKey, KeyRepository
from driftscope_service.http import problem_kinds, session
from driftscope_service.http.errors import problem_response
from driftscope_service.http.problem_kinds import ProblemKind
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database

#: `last_used_at` answers whether a key may go; a write per request would cost more than that.
LAST_USED_EVERY: Final = timedelta(hours=1)
_CHALLENGE = 'Bearer realm="driftscope"'
_log = logging.getLogger("driftscope")


class NoKeyError(ProbeError):
    """The service would be reachable from elsewhere, but without an active key."""


@dataclass(frozen=True, slots=True)
class Refusal:
    kind: ProblemKind
    detail: str
    challenge: str  # for WWW-Authenticate, RFC 6750 section 3


def check_keys_exist(settings: Settings, database: Database) -> None:
    """Raises NoKeyError for an address beyond loopback without any active key."""
    if settings.listens_on_loopback:
        return
    with database.read() as connection:
        if KeyRepository(connection).any_active():
            return
    raise NoKeyError(
        f"{settings.host} can be reached from other machines, and there is no active API key: "
        "anyone who reaches the port could start probes.",
        remedy="make one with `driftscope keys create --name NAME --scope admin --data-dir "
        f"{settings.data_dir}`, or listen on 127.0.0.1.",
    )


def refusal(database: Database, authorization: str | None, needed: Scope) -> Refusal | None:
    """Blocking: it reads the database."""
    if authorization is None:
        detail = f"this needs an API key with the scope {needed}"
        return Refusal(problem_kinds.UNAUTHENTICATED, detail, _CHALLENGE)
    text = _bearer(authorization)
    if text is None:
        return _invalid("the Authorization header is not `Bearer dsk_<id>_<secret>`")
    return _refusal(database, text, needed)


def key_refusal(database: Database, key: str, needed: Scope) -> Refusal | None:
    """The same of a key by itself, as a form has it. Blocking: it reads the database."""
    text = parse_key(key)
    if text is None:
        return _invalid("a key looks like `dsk_<id>_<secret>`, as it was printed once")
    return _refusal(database, text, needed)


def _refusal(database: Database, text: KeyText, needed: Scope) -> Refusal | None:
    with database.read() as connection:
        key = KeyRepository(connection).get(text.id)
    if key is None or not text.matches(key.secret_sha256):
        return _invalid("no key of this service has this text")
    now = datetime.now(UTC)
    state = key.state(now)
    if state != "active":
        return _invalid(f"the key {key.id} is {state}")
    if not allows(key.scopes, needed):
        return Refusal(
            problem_kinds.SCOPE_MISSING,
            f"the key {key.id} has {', '.join(sorted(key.scopes))}; this needs {needed}",
            f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"',
        )
    _note_use(database, key, now)
    return None


def why_not(settings: Settings, database: Database, headers: Headers, needed: Scope) -> str | None:
    """For a page that offers what another request would do; None: its sender may."""
    if not settings.keys_required:
        return None
    refused = refusal(database, session.authorization(headers), needed)
    return None if refused is None else refused.detail


def _bearer(authorization: str) -> KeyText | None:
    # RFC 9110 section 11.1: the name of the scheme is case-insensitive.
    scheme, _, token = authorization.partition(" ")
    return parse_key(token.strip()) if scheme.lower() == "bearer" else None


def _invalid(detail: str) -> Refusal:
    return Refusal(problem_kinds.UNAUTHENTICATED, detail, f'{_CHALLENGE}, error="invalid_token"')


def _note_use(database: Database, key: ApiKey, now: datetime) -> None:
    if key.last_used_at is not None and now - key.last_used_at < LAST_USED_EVERY:
        return
    try:
        with database.write() as connection:
            KeyRepository(connection).used(key.id, now)
    except OperationalError as error:
        # A full disk must not lock out the operator who frees space.
        _log.warning("last use of key %s not noted: %s", key.id, error.orig)


class KeyGuard:
    def __init__(self, app: ASGIApp, database: Database, required: bool) -> None:
        self._app = app
        self._database = database
        self._required = required

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._required:
            return await self._app(scope, receive, send)
        needed = required_scope(scope["method"], scope["path"])
        if needed is None:
            return await self._app(scope, receive, send)
        asked = Headers(scope=scope)
        authorization = session.authorization(asked)
        try:
            refused = await run_in_threadpool(refusal, self._database, authorization, needed)
        except OperationalError:
            response = problem_response(
                scope, problem_kinds.STORAGE_UNAVAILABLE, "the key could not be looked up"
            )
            return await response(scope, receive, send)
        if refused is not None and session.wants_page(scope["method"], scope["path"], asked):
            return await _to_login(scope)(scope, receive, send)
        if refused is not None:
            headers = {"WWW-Authenticate": refused.challenge}
            response = problem_response(scope, refused.kind, refused.detail, headers=headers)
            return await response(scope, receive, send)
        await self._app(scope, receive, send)


def _to_login(scope: AsgiScope) -> RedirectResponse:
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"{session.LOGIN_PATH}?{urlencode({'next': target})}", 303)
