"""The guard of every request: its key, its scope, the runs in reach, and how often it may ask.

Wrong keys are slowed down per address: the answer to a wrong one is 429 once there were too many. A
right key is looked up all the same, so that nobody behind the same address is locked out; a secret
of 256 random bits is not guessed by asking more often.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from fastapi import Request, Response
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from driftscope_service.auth import reach
from driftscope_service.auth.access import KEY, Refusal, key_of_request, note_use, refusal
from driftscope_service.auth.key import Scope, required_scope
from driftscope_service.auth.rates import AT_ONCE_RETRY_S, WINDOW_S, AtOnce, Clock, Rate, Taken
from driftscope_service.auth.reach import Reach
from driftscope_service.auth.store import ApiKey
from driftscope_service.http import problem_kinds, session
from driftscope_service.http.errors import STORAGE_RETRY_S, problem_response
from driftscope_service.http.log_format import KEY_ID
from driftscope_service.pages.page_errors import error_page
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database

#: A person mistypes a key, a job starts with an old one: both find out within a few tries.
WRONG_KEYS_PER_MINUTE: Final = 10
#: Whoever has one IPv6 address has its whole network, and could use a new one for each guess.
_IPV6_NETWORK_BITS: Final = 64
#: Another try with the same key would end alike: a browser is told why, not led to the login form.
_TOLD_ON_A_PAGE: Final = (
    problem_kinds.SCOPE_MISSING,
    problem_kinds.RUN_OUT_OF_REACH,
    problem_kinds.RATE_LIMITED,
)


class WrongKeys:
    """By the address that they came from."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._rate = Rate() if clock is None else Rate(clock)

    def slowed(self, scope: AsgiScope, refused: Refusal) -> tuple[Refusal, Mapping[str, str]]:
        """The refusal, or the one in its place with its headers, where too many were wrong."""
        if not refused.guessed:
            return refused, {}
        taken = self._rate.take(client_network(scope), WRONG_KEYS_PER_MINUTE)
        if taken.allowed:
            return refused, {}
        detail = f"more than {WRONG_KEYS_PER_MINUTE} in a minute, and this one is wrong too"
        instead = Refusal(problem_kinds.TOO_MANY_WRONG_KEYS, detail)
        return instead, {"Retry-After": str(taken.retry_after_s)}


def client_network(scope: AsgiScope) -> str:
    """The address of the client; of IPv6 its network. "" where there is none, as behind a pipe."""
    client = scope.get("client")
    if not client:
        return ""
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))


@dataclass(frozen=True, slots=True)
class Allowance:
    who: str  # that it is counted for: a key, an address
    words: str
    per_minute: int
    at_once: int | None  # None: any number

    @staticmethod
    def of_key(key: ApiKey, settings: Settings) -> Allowance:
        return Allowance(
            f"key {key.id}",
            f"the key {key.id}",
            key.requests_per_minute or settings.requests_per_minute_per_key,
            key.max_concurrent or settings.concurrent_requests_per_key,
        )


class Limited(Exception):
    def __init__(self, refused: Refusal, headers: Mapping[str, str]) -> None:
        super().__init__(refused.detail)
        self.refused = refused
        self.headers = headers


class Limits:
    def __init__(self, clock: Clock | None = None) -> None:
        self._rate = Rate() if clock is None else Rate(clock)
        self._at_once = AtOnce()

    @contextmanager
    def admitted(self, allowance: Allowance) -> Iterator[Mapping[str, str]]:
        """Headers of the answer. Raises Limited. What is refused takes nothing of either limit."""
        most = allowance.at_once
        if most is None:
            yield self._taken(allowance)
            return
        with self._at_once.hold(allowance.who, most) as held:
            if not held:
                detail = f"{allowance.words} may have {most} requests under way at once, and has"
                refused = Refusal(problem_kinds.RATE_LIMITED, detail)
                raise Limited(refused, {"Retry-After": str(AT_ONCE_RETRY_S)})
            yield self._taken(allowance)

    def _taken(self, allowance: Allowance) -> Mapping[str, str]:
        taken = self._rate.take(allowance.who, allowance.per_minute)
        headers = _rate_headers(allowance, taken)
        if taken.allowed:
            return headers
        detail = f"{allowance.words} may send {allowance.per_minute} requests in a minute"
        raise Limited(
            Refusal(problem_kinds.RATE_LIMITED, detail),
            {**headers, "Retry-After": str(taken.retry_after_s)},
        )


def _rate_headers(allowance: Allowance, taken: Taken) -> Mapping[str, str]:
    """As in the IETF's draft on RateLimit header fields for HTTP."""
    again = 0 if taken.left else taken.retry_after_s
    return {
        "RateLimit-Policy": f'"minute";q={allowance.per_minute};w={int(WINDOW_S)}',
        "RateLimit": f'"minute";r={taken.left};t={again}',
    }


class KeyGuard:
    def __init__(
        self, app: ASGIApp, *, database: Database, settings: Settings, wrong_keys: WrongKeys
    ) -> None:
        self._app = app
        self._database = database
        self._settings = settings
        self._wrong_keys = wrong_keys
        self._limits = Limits()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        needed = required_scope(scope["method"], scope["path"])
        if needed is None:  # health routes among them
            return await self._app(scope, receive, send)
        if not self._settings.keys_required:
            return await self._anyone(scope, receive, send)
        try:
            key = await run_in_threadpool(self._key, scope, needed)
        except OperationalError:
            response = problem_response(
                scope,
                problem_kinds.STORAGE_UNAVAILABLE,
                "the key could not be looked up",
                headers={"Retry-After": str(STORAGE_RETRY_S)},
            )
            return await response(scope, receive, send)
        if isinstance(key, Refusal):
            refused, headers = self._wrong_keys.slowed(scope, key)
            return await _refused(scope, refused, headers)(scope, receive, send)
        with reach.within(Reach(key.run_prefix)):
            await self._limited(Allowance.of_key(key, self._settings), scope, receive, send)

    def _key(self, scope: AsgiScope, needed: Scope) -> ApiKey | Refusal:
        """Blocking: it reads the database."""
        key = key_of_request(scope, self._database)
        if isinstance(key, Refusal):
            return key
        # Of a refused request too, for the log.
        scope["state"] |= {KEY_ID: key.id, KEY: key}
        refused = refusal(key, needed, scope["path"])
        if refused is not None:
            return refused
        note_use(self._database, key)
        return key

    async def _anyone(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        per_minute = self._settings.requests_per_minute_per_address
        if not per_minute:
            return await self._app(scope, receive, send)
        client = client_network(scope)
        allowance = Allowance(f"address {client}", "your address", per_minute, None)
        await self._limited(allowance, scope, receive, send)

    async def _limited(
        self, allowance: Allowance, scope: AsgiScope, receive: Receive, send: Send
    ) -> None:
        """Until the answer is whole: a stream of events counts as long as it lasts."""
        try:
            with self._limits.admitted(allowance) as headers:
                await self._app(scope, receive, _with(send, headers))
        except Limited as limited:
            response = _refused(scope, limited.refused, limited.headers)
            await response(scope, receive, send)


def _with(send: Send, headers: Mapping[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


def _refused(scope: AsgiScope, refused: Refusal, headers: Mapping[str, str]) -> Response:
    if session.wants_page(scope["method"], scope["path"], Headers(scope=scope)):
        if refused.kind not in _TOLD_ON_A_PAGE:
            return _to_login(scope)
        shown = error_page(Request(scope), refused.kind, refused.detail)
        shown.headers.update(headers)
        return shown
    if refused.challenge is not None:
        headers = {**headers, "WWW-Authenticate": refused.challenge}
    return problem_response(scope, refused.kind, refused.detail, headers=headers)


def _to_login(scope: AsgiScope) -> RedirectResponse:
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"{session.LOGIN_PATH}?{urlencode({'next': target})}", 303)
