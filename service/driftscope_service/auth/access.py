"""Who may do what: the key of a request, and what its scopes and its prefix of runs allow."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import KeyText, Scope, allows, parse_key
from driftscope_service.auth.reach import Reach
from driftscope_service.auth.sessions import SessionRepository
from driftscope_service.auth.store import ApiKey, KeyRepository
from driftscope_service.http import problem_kinds, session
from driftscope_service.http.problem_kinds import ProblemKind
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database

#: `last_used_at` answers whether a key may go; a write per request would cost more than that.
LAST_USED_EVERY: Final = timedelta(hours=1)
#: Under this name the state of a request has its key, beside the id (audit.KEY_ID).
KEY: Final = "key"
_CHALLENGE: Final = 'Bearer realm="driftscope"'
_log = logging.getLogger("driftscope")


class NoKeyError(ProbeError):
    """The service would be reachable from elsewhere, but without an active key."""


@dataclass(frozen=True, slots=True)
class Refusal:
    kind: ProblemKind
    detail: str
    challenge: str | None = None  # for WWW-Authenticate, RFC 6750 section 3
    guessed: bool = False  # the key is wrong, as against one that has ended or is missing


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


def key_of_request(scope: AsgiScope, database: Database) -> ApiKey | Refusal:
    """By the Authorization header, or else by the session. Blocking: it reads the database."""
    authorization = Headers(scope=scope).get("authorization")
    if authorization is not None:
        text = _bearer(authorization)
        if text is None:
            return _wrong("the Authorization header is not `Bearer dsk_<id>_<secret>`")
        return _active(database, text)
    token = session.token(scope)
    if token is None:
        return Refusal(problem_kinds.UNAUTHENTICATED, "this needs an API key", _CHALLENGE)
    with database.read() as connection:
        key = SessionRepository(connection).key_of(token, datetime.now(UTC))
    return _ended("the session has ended") if key is None else _unless_ended(key)


def key_of_text(given: str, database: Database) -> ApiKey | Refusal:
    """Of a key by itself, as a form has it. Blocking: it reads the database."""
    text = parse_key(given)
    if text is None:
        return _wrong("a key looks like `dsk_<id>_<secret>`, as it was printed once")
    return _active(database, text)


def refusal(key: ApiKey, needed: Scope, path: str | None = None) -> Refusal | None:
    """Why this key may not do what needs this scope, at this path."""
    if not allows(key.scopes, needed):
        return Refusal(
            problem_kinds.SCOPE_MISSING,
            f"the key {key.id} has {', '.join(sorted(key.scopes))}; this needs {needed}",
            f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"',
        )
    closed = None if path is None else Reach(key.run_prefix).refusal(path)
    return None if closed is None else Refusal(problem_kinds.RUN_OUT_OF_REACH, closed)


def why_not(request: Request, needed: Scope, path: str | None = None) -> str | None:
    """For a page that offers what another request would do; None: its sender may. Where no key is
    required, everyone may."""
    key = cast(ApiKey | None, request.scope["state"].get(KEY))
    refused = None if key is None else refusal(key, needed, path)
    return None if refused is None else refused.detail


def note_use(database: Database, key: ApiKey) -> None:
    now = datetime.now(UTC)
    if key.last_used_at is not None and now - key.last_used_at < LAST_USED_EVERY:
        return
    try:
        with database.write() as connection:
            KeyRepository(connection).used(key.id, now)
    except OperationalError as error:
        # A full disk must not lock out the operator who frees space.
        _log.warning("last use of key %s not noted: %s", key.id, error.orig)


def _bearer(authorization: str) -> KeyText | None:
    # RFC 9110 section 11.1: the name of the scheme is case-insensitive.
    scheme, _, token = authorization.partition(" ")
    return parse_key(token.strip()) if scheme.lower() == "bearer" else None


def _active(database: Database, text: KeyText) -> ApiKey | Refusal:
    with database.read() as connection:
        key = KeyRepository(connection).get(text.id)
    if key is None or not text.matches(key.secret_sha256):
        return _wrong("no key of this service has this text")
    return _unless_ended(key)


def _unless_ended(key: ApiKey) -> ApiKey | Refusal:
    state = key.state(datetime.now(UTC))
    if state == "active":
        return key
    successor = "" if key.replaced_by is None else f"; it was rotated into {key.replaced_by}"
    return _ended(f"the key {key.id} is {state}{successor}")


def _ended(detail: str) -> Refusal:
    return Refusal(problem_kinds.UNAUTHENTICATED, detail, f'{_CHALLENGE}, error="invalid_token"')


def _wrong(detail: str) -> Refusal:
    return Refusal(
        problem_kinds.UNAUTHENTICATED, detail, f'{_CHALLENGE}, error="invalid_token"', guessed=True
    )
