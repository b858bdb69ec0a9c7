"""What a browser gets where no page answered: for an address that does not exist, and for a bug.

Errors within a page are those of `page_route`; programs get problem+json as everywhere.
"""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from driftscope_service import problem_kinds
from driftscope_service.auth.session import wants_page
from driftscope_service.errors import on_bug, on_http_exception
from driftscope_service.web.page_route import error_page

NOT_FOUND = 404


def install(app: FastAPI) -> None:
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
