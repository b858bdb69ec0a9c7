"""GET and POST /login: give the browser a key; POST /logout: remove it."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.access import key_refusal
from driftscope_service.auth.key import Scope
from driftscope_service.http import session
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
    database: Database = request.app.state.service.database
    refused = await run_in_threadpool(key_refusal, database, key, Scope.READ)
    if refused is not None:
        return _form(request, target, refused.detail, refused.kind.status)
    response = RedirectResponse(target, 303)
    session.keep(response, key)
    return response


@router.post(session.LOGOUT_PATH)
def logout() -> Response:
    response = RedirectResponse(session.LOGIN_PATH, 303)
    session.forget(response)
    return response


def _form(request: Request, target: str, wrong: str | None = None, status: int = 200) -> Response:
    return page(
        request,
        "auth/templates/login",
        title="API key",
        section=None,
        status=status,
        target=target,
        wrong=wrong,
    )
