"""Errors of pages as pages: whoever looks at HTML gets HTML, with the same words as the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError, on_bug, on_http_exception, request_id
from driftscope_service.http.problem_kinds import ProblemKind
from driftscope_service.http.session import wants_page
from driftscope_service.pages.page import page

_log = logging.getLogger("driftscope")


class PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_pages(request: Request) -> Response:
            try:
                return await handle(request)
            except ServiceError as error:
                return error_page(request, error.kind, error.detail, error.extras.get("remedy"))
            except RequestValidationError as error:
                return _invalid(request, error)
            except OperationalError as error:
                _log.error("request %s: database: %s", request_id(request.scope), error)
                return error_page(
                    request, problem_kinds.STORAGE_UNAVAILABLE, "The database did not answer."
                )

        return handle_with_pages


def error_page(
    request: Request, kind: ProblemKind, detail: str, remedy: str | None = None
) -> Response:
    return page(
        request,
        "pages/templates/error",
        title=kind.title,
        section=None,
        status=kind.status,
        kind=kind,
        detail=detail,
        remedy=remedy,
        request_id=request_id(request.scope),
    )


def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place, *names = first["loc"]
    named = "/".join(str(name) for name in names)[:80]
    kind = problem_kinds.NOT_FOUND if place == "path" else problem_kinds.INVALID_REQUEST
    detail = f"{named} in the address is not accepted: {str(first['msg'])[:200]}."
    return error_page(request, kind, detail, "Correct the address, or begin at the runs.")


NOT_FOUND = 404


def install_page_errors(app: FastAPI) -> None:
    """After `add_error_handlers`, whose place two of these take."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


def _on_http_exception(request: Request, exception: Exception) -> Response:
    nowhere = cast(HTTPException, exception).status_code == NOT_FOUND
    if not nowhere or not _is_browser(request):
        return on_http_exception(request, exception)
    detail = f"There is nothing at {request.url.path[:200]}"
    return error_page(request, problem_kinds.NOT_FOUND, detail, "Begin at the runs.")


def _on_bug(request: Request, exception: Exception) -> Response:
    answer = on_bug(request, exception)
    if not _is_browser(request):
        return answer
    detail = "The service failed at this page; its log has the cause beside the request below"
    return error_page(request, problem_kinds.INTERNAL_ERROR, detail)


def _is_browser(request: Request) -> bool:
    return wants_page(request.method, request.url.path, request.headers)
