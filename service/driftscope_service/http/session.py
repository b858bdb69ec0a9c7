"""A browser's API key: kept in a cookie after a form took it, used like the Authorization header.

The cookie is HttpOnly (no script reads it) and SameSite=Strict (no other site's request carries
it); requests that change something must come from our own pages besides (http/guards).
It is not marked Secure: the service itself speaks plain HTTP, a proxy in front may add the mark.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

COOKIE: Final = "driftscope_key"
#: A working day; afterwards the form asks again.
LASTS_S: Final = 12 * 3600
LOGIN_PATH: Final = "/login"
LOGOUT_PATH: Final = "/logout"


def authorization(headers: Headers) -> str | None:
    """The header if there is one, else the equivalent of the cookie."""
    given = headers.get("authorization")
    if given is not None:
        return given
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else bearer(found.value)


def bearer(key: str) -> str:
    return f"Bearer {key}"


def keep(response: Response, key: str) -> None:
    response.set_cookie(COOKIE, key, max_age=LASTS_S, path="/", httponly=True, samesite="strict")


def forget(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def wants_page(method: str, path: str, headers: Headers) -> bool:
    """A browser on its way to a page, rather than a program."""
    return (
        method == "GET" and not path.startswith("/v1/") and "text/html" in headers.get("accept", "")
    )


def own_path(given: str) -> str:
    """Where to go after the form: a path of this service, nothing else."""
    if given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable():
        return given
    return "/"
