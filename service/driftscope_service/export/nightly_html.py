"""A night as one HTML page without scripts. In: its JSON. Out: text; same in, same bytes out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from driftscope_service.export.nightly_terminal import OUTCOMES, counts, shown, state
from driftscope_service.export.page_template import page_environment, resource

TEMPLATE = "nightly.html.jinja"


def render(result: Mapping[str, Any]) -> str:
    """Everything in the result is text to this page: markup in a name or a note is shown as is."""
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            result=result,
            outcome=OUTCOMES[result["exit_code"]],
            counts=counts(result),
            style=Markup(resource("export", "templates", "report.css")),
            nightly_style=Markup(resource("export", "templates", "nightly.css")),
        )
    )


@cache
def _environment() -> Environment:
    environment = page_environment()
    environment.globals["state"] = state
    environment.filters["shown"] = shown
    return environment
