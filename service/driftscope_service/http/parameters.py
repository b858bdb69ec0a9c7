"""Query parameters that a route does not have, and numbers that are not written as numbers: an
error, never ignored.

A filter that is misspelt would otherwise answer with everything, which reads as if it had held.
"""

from __future__ import annotations

import difflib
import re
from types import NoneType
from typing import get_args

from fastapi import Request
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from driftscope_service.http.errors import InvalidField

#: Of a name that was given, in the answer.
MOST_SHOWN = 80
#: A negative one is an integer as well; the limits of the field say what is wrong with it.
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")


async def known_parameters(request: Request) -> None:  # not a thread for each request
    """A dependency of every route. Raises InvalidField (422) for the first unknown parameter."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    _check_numbers(request, route.dependant)
    if not request.query_params:
        return
    if any(one.call is own_parameters for one in route.dependant.dependencies):
        return
    check_parameters(request, _names(route.dependant))


def _check_numbers(request: Request, dependant: Dependant) -> None:
    """Integers as one writes them: pydantic reads +1, 1.0, 1_0 and digits of other scripts as well,
    so that one step would have many addresses."""
    given = {"path": request.path_params, "query": request.query_params}
    for place, fields in (("path", dependant.path_params), ("query", dependant.query_params)):
        for field in fields:
            text = given[place].get(field.alias)
            if isinstance(text, str) and is_integer(field) and not INTEGER.fullmatch(text):
                raise InvalidField(
                    f"{place}/{field.alias}",
                    f"{text[:MOST_SHOWN]!r} is not an integer in decimal digits",
                    remedy="write it without sign, leading zeros, point, spaces or underscores.",
                )


def is_integer(field: ModelField) -> bool:
    """int, or int or nothing."""
    kind = field.field_info.annotation
    return kind is int or set(get_args(kind)) == {int, NoneType}


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
