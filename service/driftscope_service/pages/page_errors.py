"""Errors of pages as pages: whoever looks at HTML gets HTML, with the same words as the API.

Give `route_class=PageRoute` to the router of a page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError, request_id
from driftscope_service.problem_kinds import ProblemKind
from driftscope_service.web.page import page

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
        "error",
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
