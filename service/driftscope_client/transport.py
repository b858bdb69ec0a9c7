"""One request to the service: sent, refused, sent again."""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from driftscope_client.errors import DriftscopeError

#: Too busy, starting, or a proxy without a backend. Every other answer is final.
PASSING = frozenset({429, 502, 503, 504})
#: Longest wait, ours or by Retry-After: a service that is unavailable for longer is down.
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """With the defaults it gives up after about 15 seconds of waiting."""

    attempts: int = 5
    first_wait_s: float = 1.0

    def wait_s(self, failures: int, answer: httpx.Response | None) -> float | None:
        """`failures` counts from 1. Without an answer, the connection failed or broke."""
        if failures >= self.attempts or (answer is not None and answer.status_code not in PASSING):
            return None
        # Half of it at random, so that the ranks of one job do not return all at once.
        backoff = self.first_wait_s * 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)
        return min(max(backoff, _retry_after_s(answer)), LONGEST_WAIT_S)


def _retry_after_s(answer: httpx.Response | None) -> float:
    """Only its form in seconds; a date is ignored."""
    said = "" if answer is None else answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0


#: A service that is up accepts at once, also while it analyses.
CONNECT_TIMEOUT_S = 5.0
#: How much of a page that is not the service's a refusal may quote.
SHOWN_CHARACTERS = 200

JSON = "application/json"
PROBLEM = "application/problem+json"
CHECK_URL = "check that the URL is the address of a driftscope service."
CLOSED = "give close() or close_timeout_s more time."
#: Of a step under way when the client closed: whether it arrived, nobody knows.
NO_ANSWER_AT_CLOSE = "no answer before the client closed"
SLOW = "look at the service's log and at the load of its machine, or give a longer timeout_s."
START = "start the service with `driftscope serve`, or give its address (DRIFTSCOPE_URL)."


@dataclass(frozen=True, slots=True)
class RequestBody:
    chunks: Callable[[], Iterable[bytes]]  # from the start at each call
    size: int | None  # bytes; None where it is known only after it was sent
    content_type: str
    content_encoding: str = "identity"

    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": self.content_type}
        if self.content_encoding != "identity":
            headers["Content-Encoding"] = self.content_encoding
        if self.size is not None:
            headers["Content-Length"] = str(self.size)
        return headers


class Transport:
    """May be used from several threads. Raises DriftscopeError for a malformed URL or key.

    `trouble` is what kept the latest attempt from an answer, None once there was one: what a step
    that finds no room is told. `on_retry` hears of each attempt that failed and is made again.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        timeout_s: float,
        retry: RetryPolicy | None = None,
        on_retry: Callable[[DriftscopeError], None] = lambda _: None,
    ) -> None:
        self.url = url.rstrip("/")
        self.trouble: DriftscopeError | None = None
        self.asked_at: float | None = None  # time.monotonic(), of the first attempt under way
        self.answered_at = float("-inf")  # of the latest success
        self._on_retry = on_retry
        self._retry = retry or RetryPolicy()
        self._stopped = threading.Event()
        self._using, self._under_way = threading.Lock(), 0  # requests
        self._base_url, self._headers = _checked_url(self.url), _authorization(api_key)
        self._timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)

    def post(
        self, path: str, params: Mapping[str, str | int], body: RequestBody | None = None
    ) -> dict[str, Any]:
        return self._request("POST", path, params, body)

    def put(self, path: str, value: Mapping[str, object]) -> dict[str, Any]:
        """`value` as JSON."""
        data = json.dumps(value).encode()
        return self._request("PUT", path, {}, RequestBody(lambda: [data], len(data), JSON))

    def _request(
        self, method: str, path: str, params: Mapping[str, str | int], body: RequestBody | None
    ) -> dict[str, Any]:
        with self._using:
            if self._stopped.is_set():
                raise DriftscopeError(
                    f"the client has closed its connections to {self.url}.",
                    remedy=CLOSED,
                    reason=NO_ANSWER_AT_CLOSE,
                )
            self._under_way += 1
        self.asked_at = time.monotonic()
        try:
            return self._until_answered(method, path, params, body)
        finally:
            self.asked_at = None
            with self._using:
                self._under_way -= 1
                self._close_if_unused()

    def _until_answered(
        self, method: str, path: str, params: Mapping[str, str | int], body: RequestBody | None
    ) -> dict[str, Any]:
        failures = 0
        while True:
            answer, broken = self._try(method, path, params, body)
            if answer is not None and answer.is_success:
                self.trouble, self.answered_at = None, time.monotonic()
                return _json_object(answer)
            failures += 1
            error = (
                unanswered(self.url, broken, self._timeout) if answer is None else refusal(answer)
            )
            self.trouble = error
            wait_s = self._retry.wait_s(failures, answer)
            if wait_s is not None and not self._stopped.is_set():
                self._on_retry(error)
            if wait_s is None or self._stopped.wait(wait_s):
                raise error from broken

    def stop(self) -> None:
        """Waits between attempts end. Connections close, one that is in use after its answer: from
        another thread, it could be neither woken nor closed for certain."""
        with self._using:
            self._stopped.set()
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._stopped.is_set() and not self._under_way and "_http" in vars(self):
            self._http.close()

    @cached_property
    def _http(self) -> httpx.Client:
        """Made at the first request: certificates load slowly, and forked children seldom push."""
        return httpx.Client(
            base_url=self._base_url,
            headers=self._headers,
            timeout=self._timeout,
            # Proxy settings are meant for the internet; the service runs next to its trainers.
            trust_env=False,
        )

    def _try(
        self, method: str, path: str, params: Mapping[str, str | int], body: RequestBody | None
    ) -> tuple[httpx.Response | None, Exception | None]:
        content, headers = (body.chunks(), body.headers()) if body else (None, {})
        try:
            answer = self._http.request(
                method, path, params=params, content=content, headers=headers
            )
            return answer, None
        except (httpx.TransportError, httpx.DecodingError) as error:
            return None, error


def refusal(answer: httpx.Response) -> DriftscopeError:
    """In the words of the service, from its problem details (RFC 9457)."""
    status = answer.status_code
    problem = _parsed(answer) if answer.headers.get("content-type") == PROBLEM else None
    if problem is None:
        shown = answer.text[:SHOWN_CHARACTERS]
        return DriftscopeError(
            f"{answer.url} answered {status}: {shown}", remedy=CHECK_URL, status=status
        )
    title = str(problem.get("title", status))
    told = f"{title}: {problem.get('detail', '')}".rstrip(" :.")
    remedy = problem.get("remedy") or f"see {answer.url.join(str(problem.get('type', '/')))}"
    return DriftscopeError(
        f"{told}.", remedy=str(remedy), status=status, reason=f"HTTP {status}, {title}"
    )


def _json_object(answer: httpx.Response) -> dict[str, Any]:
    value = _parsed(answer)
    if value is None:
        told = f"{answer.url} answered {answer.status_code} without a JSON object."
        raise DriftscopeError(told, remedy=CHECK_URL, status=answer.status_code)
    return value


def _parsed(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        value = answer.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


LOOK_AT_LOG = "look at the service's log, and at proxies on the way."


def unanswered(url: str, error: Exception | None, timeout: httpx.Timeout) -> DriftscopeError:
    """What kept the service from answering, by the error at the root: httpx names it by layer."""
    root = _root(error)
    if isinstance(error, httpx.ConnectTimeout):
        why, reason = f"no connection within {timeout.connect:g} s", "no connection in time"
    elif isinstance(error, httpx.TimeoutException):
        told = (
            f"the service at {url} took the connection and has not answered in {timeout.read:g} s."
        )
        return DriftscopeError(told, remedy=SLOW, reason="no answer in time")
    elif isinstance(root, ConnectionRefusedError):
        why, reason = "connection refused, nothing listens there", "connection refused"
    elif isinstance(root, socket.gaierror):
        why, reason = f"the name of its host is unknown ({root.strerror})", "host name unknown"
    elif isinstance(root, ssl.SSLError):
        why, reason = f"TLS failed: {root}", "TLS failed"
    elif isinstance(error, httpx.ConnectError):
        why, reason = str(root) or type(root).__name__, "no connection"
    else:
        told = f"the connection to {url} broke before the answer: {root or type(root).__name__}"
        return DriftscopeError(
            f"{told.rstrip('.')}.", remedy=LOOK_AT_LOG, reason="connection broken"
        )
    return DriftscopeError(
        f"the service at {url} cannot be reached: {why}.", remedy=START, reason=reason
    )


def _root(error: BaseException | None) -> BaseException | None:
    while error is not None and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise DriftscopeError(f"{url!r} is not a URL: {error}.", remedy=START) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise DriftscopeError(f"{url!r} is not an http or https URL.", remedy=START)
    return parsed


def _authorization(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        # Never shown: it is a secret.
        raise DriftscopeError(
            "the API key holds characters that no key has.",
            remedy="give the key as `driftscope keys create` printed it (DRIFTSCOPE_API_KEY).",
        )
    return {"Authorization": f"Bearer {api_key}"}
