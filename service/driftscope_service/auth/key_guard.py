"""API keys: a request passes with a key that has the scope it needs, where keys are required.

Checked before the body is read: an unauthorised push must not fill the disk.
"""

from __future__ import annotations

from urllib.parse import urlencode

from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from driftscope_service.auth.access import refusal
from driftscope_service.auth.key import required_scope
from driftscope_service.http import problem_kinds, session
from driftscope_service.http.errors import problem_response
from driftscope_service.store.database import Database


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
