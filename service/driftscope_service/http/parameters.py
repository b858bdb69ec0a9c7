"""Query parameters that a route does not have: an error, never ignored.

A filter that is misspelt would otherwise answer with everything, which reads as if it had held.
"""

from __future__ import annotations

import difflib

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from driftscope_service.http.errors import InvalidField

#: Of a name that was given, in the answer.
MOST_SHOWN = 80


async def known_parameters(request: Request) -> None:  # not a thread for each request
    """A dependency of every route. Raises InvalidField (422) for the first unknown parameter."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    if any(one.call is own_parameters for one in route.dependant.dependencies):
        return
    check_parameters(request, _names(route.dependant))


def own_parameters() -> None:
    """A dependency of a route whose parameters only its work knows: it checks them itself."""


def check_parameters(request: Request, names: set[str]) -> None:
    """Raises InvalidField (422) for the first parameter that is not among `names`."""
    for given in request.query_params:
        if given not in names:
            raise _unknown(given, names)


def _names(dependant: Dependant) -> set[str]:
    """Of a route and of what it depends on."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*map(_names, dependant.dependencies))


def _unknown(given: str, names: set[str]) -> InvalidField:
    shown = given[:MOST_SHOWN]
    message = f"there is no parameter {shown!r} here"
    if not names:
        return InvalidField(f"query/{shown}", message, remedy="leave it out: there are none.")
    near = difflib.get_close_matches(given[:MOST_SHOWN], names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return InvalidField(
        f"query/{shown}", message, remedy=f"{meant}Accepted are {', '.join(sorted(names))}."
    )
