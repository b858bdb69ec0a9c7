"""A browser's session: a random token in a cookie, used in place of the Authorization header.

The cookie is HttpOnly (no script reads it) and SameSite=Strict (no other site's request carries
it); requests that change something must come from our own pages besides (http/middleware). Over TLS
it is Secure as well, and its name begins with `__Host-`: no other host of the domain can set it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

COOKIE: Final = "driftscope_session"
SECURE_COOKIE: Final = f"__Host-{COOKIE}"
#: Held the key itself in older versions; it is not read any more, only removed.
FORMER_COOKIE: Final = "driftscope_key"
LOGIN_PATH: Final = "/login"
LOGOUT_PATH: Final = "/logout"


def is_secure(scope: Scope) -> bool:
    """The browser came over TLS; a trusted proxy in front says so."""
    return bool(scope.get("scheme") == "https")


def cookie_name(scope: Scope) -> str:
    return SECURE_COOKIE if is_secure(scope) else COOKIE


def token(scope: Scope) -> str | None:
    """Of the cookie, unchecked."""
    return _cookie(scope, cookie_name(scope))


def has_former_cookie(scope: Scope) -> bool:
    return _cookie(scope, FORMER_COOKIE) is not None


def _cookie(scope: Scope, name: str) -> str | None:
    try:
        found = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def keep(response: Response, scope: Scope, token: str, expires_at: datetime) -> None:
    response.set_cookie(
        cookie_name(scope),
        token,
        max_age=max(0, int((expires_at - datetime.now(UTC)).total_seconds())),
        path="/",
        httponly=True,
        secure=is_secure(scope),
        samesite="strict",
    )
    _forget_former(response, scope)


def forget(response: Response, scope: Scope) -> None:
    _delete(response, scope, cookie_name(scope))
    _forget_former(response, scope)


def _forget_former(response: Response, scope: Scope) -> None:
    if has_former_cookie(scope):
        _delete(response, scope, FORMER_COOKIE)


def _delete(response: Response, scope: Scope, name: str) -> None:
    response.delete_cookie(
        name, path="/", httponly=True, secure=is_secure(scope), samesite="strict"
    )


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
