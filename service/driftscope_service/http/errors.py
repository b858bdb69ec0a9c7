"""Errors as problem details (RFC 9457): raising, answering and documenting them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from driftscope_probes.push.rules import PushError
from driftscope_service.http import problem_kinds
from driftscope_service.http.problem_kinds import KINDS, ProblemKind
from driftscope_service.store.database import is_full
from driftscope_service.store.storage.base import FULL

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "X-Request-ID"
#: Under this name the state of a request has the slug of the problem that answered it.
PROBLEM = "problem"
#: Otherwise a body with many wrong fields would get an even larger answer.
MAX_ERRORS_LISTED = 20
MAX_ERROR_TEXT = 500
#: Of an identifier that was not found: enough to recognise it.
MAX_NAME_SHOWN = 80
#: SQLite releases a lock within a transaction's time; a full disk takes longer, a retry is cheap.
STORAGE_RETRY_S = 5
#: Space is freed as old tokens are dropped, or by the operator.
DISK_RETRY_S = 60
#: A disk or a mount that fails, is read-only or gone.
_DISK_FAILS = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)

_KIND_OF_STATUS = {
    400: problem_kinds.MALFORMED_REQUEST,
    404: problem_kinds.NOT_FOUND,
    405: problem_kinds.METHOD_NOT_ALLOWED,
    413: problem_kinds.CONTENT_TOO_LARGE,
}
_log = logging.getLogger("driftscope")


class ServiceError(Exception):
    """An error with its HTTP answer; `extras` become further members of the problem."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extras: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extras = extras


class InvalidField(ServiceError):
    """One field of the body that this service cannot accept."""

    def __init__(self, pointer: str, message: str, *, remedy: str) -> None:
        super().__init__(
            problem_kinds.INVALID_REQUEST,
            message,
            errors=[{"pointer": pointer, "message": message}],
            remedy=remedy,
        )


class HttpProblem(HTTPException):
    """A ServiceError from middleware, while a route reads its body: FastAPI makes a 400 of every
    other error there."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extras: Any,
    ) -> None:
        super().__init__(kind.status, detail, headers)
        self.kind = kind
        self.extras = extras


def not_found(what: str, identifier: str | int, within: str = "") -> ServiceError:
    """ "there is no step 99 of run 'r1'": a number as it is, a name in quotes.

    `within`: of what, in words, with its own quotes."""
    shown = str(identifier) if isinstance(identifier, int) else repr(identifier[:MAX_NAME_SHOWN])
    where = f" of {within}" if within else ""
    return ServiceError(problem_kinds.NOT_FOUND, f"there is no {what} {shown}{where}")


def request_id(scope: Scope) -> str:
    return str(scope["state"]["request_id"])


def problem_response(
    scope: Scope,
    kind: ProblemKind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **extras: Any,
) -> JSONResponse:
    identifier = request_id(scope)
    scope["state"][PROBLEM] = kind.slug
    body = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": identifier,
        **extras,
    }
    all_headers = {**(headers or {}), REQUEST_ID_HEADER: identifier}
    return JSONResponse(body, kind.status, headers=all_headers, media_type=MEDIA_TYPE)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(PushError, _on_push_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(OperationalError, _on_storage_error)
    app.add_exception_handler(OSError, _on_disk_error)
    app.add_exception_handler(Exception, on_bug)


def _on_service_error(request: Request, exception: Exception) -> JSONResponse:
    error = cast(ServiceError, exception)
    return problem_response(
        request.scope, error.kind, error.detail, headers=error.headers, **error.extras
    )


def _on_push_error(request: Request, exception: Exception) -> JSONResponse:
    error = cast(PushError, exception)
    return problem_response(
        request.scope, problem_kinds.MALFORMED_STEP, error.message, remedy=error.remedy
    )


def _on_validation_error(request: Request, exception: Exception) -> JSONResponse:
    found = cast(RequestValidationError, exception).errors()
    errors = [
        {"pointer": _pointer(error["loc"]), "message": str(error["msg"])[:MAX_ERROR_TEXT]}
        for error in found[:MAX_ERRORS_LISTED]
    ]
    fields = "field is" if len(found) == 1 else "fields are"
    return problem_response(
        request.scope,
        problem_kinds.INVALID_REQUEST,
        f"{len(found)} {fields} not acceptable; first: {errors[0]['pointer']}: "
        f"{errors[0]['message']}",
        errors=errors,
    )


def _pointer(location: tuple[str | int, ...]) -> str:
    """JSON pointer into the body; parameters as `query/limit`."""
    where, *parts = location
    # RFC 6901 section 3: ~ and / within a name are escaped.
    path = "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return ("/" + path if where == "body" else f"{where}/{path}")[:MAX_ERROR_TEXT]


def on_http_exception(request: Request, exception: Exception) -> JSONResponse:
    error = cast(HTTPException, exception)
    if isinstance(error, HttpProblem):
        return problem_response(
            request.scope, error.kind, error.detail, headers=error.headers, **error.extras
        )
    kind = _KIND_OF_STATUS.get(error.status_code)
    if kind is None:
        kind = ProblemKind("", error.status_code, HTTPStatus(error.status_code).phrase, "")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allowed_methods(request))
    return problem_response(request.scope, kind, _detail(request, error), headers=headers)


def allowed_methods(request: Request) -> list[str]:
    """Of every route of the path: the router itself names those of the first one."""
    methods: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)


def _detail(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:
        return f"there is nothing at {request.url.path[:200]}"
    if error.status_code == 405:
        return f"{request.method} is not possible at {request.url.path[:200]}"
    return str(error.detail)


def _on_storage_error(request: Request, exception: Exception) -> JSONResponse:
    _log.error("request %s: database: %s", request_id(request.scope), exception)
    if is_full(cast(OperationalError, exception)):
        return _full(request, "the disk of the database is full")
    return problem_response(
        request.scope,
        problem_kinds.STORAGE_UNAVAILABLE,
        "the database did not answer in time or could not be written",
        headers={"Retry-After": str(STORAGE_RETRY_S)},
    )


def _on_disk_error(request: Request, exception: Exception) -> JSONResponse:
    """What a disk or a bucket cannot do now is no bug; other errors of this class are."""
    number = cast(OSError, exception).errno
    if number in FULL:
        _log.error("request %s: %s", request_id(request.scope), exception)
        return _full(request, "the disk is full")
    if number not in _DISK_FAILS:
        return on_bug(request, exception)
    _log.error("request %s: storage: %s", request_id(request.scope), exception)
    return problem_response(
        request.scope,
        problem_kinds.STORAGE_UNAVAILABLE,
        "the storage of files did not answer or could not be written",
        headers={"Retry-After": str(STORAGE_RETRY_S)},
    )


def _full(request: Request, detail: str) -> JSONResponse:
    headers = {"Retry-After": str(DISK_RETRY_S)}
    return problem_response(request.scope, problem_kinds.STORAGE_FULL, detail, headers=headers)


def on_bug(request: Request, exception: Exception) -> JSONResponse:
    _log.error("request %s failed", request_id(request.scope), exc_info=exception)
    return problem_response(
        request.scope,
        problem_kinds.INTERNAL_ERROR,
        "the service failed; its log has the cause beside this request_id",
    )


class FieldProblem(BaseModel):
    pointer: str = Field(description="JSON pointer into the body, or the parameter")
    message: str


class Problem(BaseModel):
    """RFC 9457. Further members depend on the type."""

    type: str = Field(description="path under /problems that explains it")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    remedy: str | None = None


PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def problems(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can end in one of `kinds`."""
    titles: dict[int, list[str]] = {}
    for kind in kinds:
        titles.setdefault(kind.status, []).append(kind.title)
    return {
        status: {"description": "; or: ".join(same), "content": PROBLEM_CONTENT}
        for status, same in titles.items()
    }


router = APIRouter(tags=["operations"])


@router.get("/problems/{slug}", response_class=PlainTextResponse)
def get_problem_type(slug: str) -> PlainTextResponse:
    """What an error means and what to do about it."""
    for kind in KINDS:
        if kind.slug == slug:
            return PlainTextResponse(f"{kind.title} (HTTP {kind.status})\n\n{kind.meaning}\n")
    raise not_found("problem type", slug)
