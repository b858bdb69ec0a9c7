"""One page: a template with its data, as a response with the headers that every page has.

In: the request, the name of a template and what it shows. Out: HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FunctionLoader, StrictUndefined

from driftscope_service.http import session
from driftscope_service.numbers import number_format
from driftscope_service.pages import navigation as address
from driftscope_service.pages import words as moment
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.response import PAGE_HEADERS, compressed
from driftscope_service.pages.sparkline import sparkline


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
            signed_in=session.COOKIE in request.cookies,
            logout=session.LOGOUT_PATH,
            **shown,
        )
    )
    return compressed(
        request, html.encode(), "text/html; charset=utf-8", status=status, headers=PAGE_HEADERS
    )


def _source(name: str) -> str | None:
    """`name`: a path within this package, or PACKAGE:PATH of an experiment that is not ours."""
    package, _, path = name.rpartition(":")
    file = files(package or "driftscope_service").joinpath(path)
    return file.read_text(encoding="utf-8") if file.is_file() else None


@cache
def environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=number_format.number,
        share=number_format.share,
        seconds=number_format.seconds,
        moment=moment.absolute,
        ago=moment.ago,
        iso=moment.iso,
    )
    made.tests["infinite"] = math.isinf
    made.globals.update(
        with_query=address.with_query,
        run_page=address.run_page,
        step_page=address.step_page,
        sparkline=sparkline,
    )
    return made
