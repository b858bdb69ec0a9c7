"""One page: a template with its data, as a response with the headers that every page has.

In: the request, the name of a template and what it shows. Out: HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import Request, Response

from driftscope_service.http import session
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.report_template import environment
from driftscope_service.pages.response import PAGE_HEADERS, compressed


def page(
    request: Request,
    template: str,
    *,
    title: str,
    section: str | None,
    crumbs: Sequence[Crumb] = (),
    status: int = 200,
    **shown: Any,
) -> Response:
    """`section`: key of the entry of the navigation that is marked, if any."""
    html = (
        environment()
        .get_template(f"{template}.html.jinja")
        .render(
            title=title,
            section=section,
            sections=request.app.state.sections,
            crumbs=crumbs,
            version=version("driftscope"),
            here=str(request.url.path),
            signed_in=session.token(request.scope) is not None,
            logout=session.LOGOUT_PATH,
            **shown,
        )
    )
    return compressed(
        request, html.encode(), "text/html; charset=utf-8", status=status, headers=PAGE_HEADERS
    )
