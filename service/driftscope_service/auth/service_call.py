"""A request of the command line to a running service, and its refusals in words.

In: address, path, perhaps a body; the key from the environment. Out: the response, or ApiError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated

import httpx
import typer

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import parse_key

KEY_VARIABLE = "DRIFTSCOPE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8321"
#: The service answers from its database; a minute would only hide that it hangs.
TIMEOUT_S = 15.0
JSON = {"Content-Type": "application/json"}

Url = Annotated[str, typer.Option("--url", envvar="DRIFTSCOPE_URL", help="Address of the service.")]


class ApiError(ProbeError):
    """The service refused a request, or cannot be reached."""


def call(
    method: str,
    url: str,
    path: str,
    query: Mapping[str, str | int | Sequence[str]] | None = None,
    body: str | None = None,
) -> httpx.Response:
    try:
        response = httpx.request(
            method,
            url.rstrip("/") + path,
            params=query,
            content=body,
            headers=_key_header() | ({} if body is None else JSON),
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ApiError(
            f"the service at {url} cannot be reached: {error}.",
            remedy="start it with `driftscope serve`, or give its address with --url.",
        ) from None
    if response.is_error:
        raise _refusal(response)
    return response


def _key_header() -> dict[str, str]:
    """From the environment only: an option would end up in the shell's history."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return {}
    if parse_key(key) is None:
        raise ApiError(
            f"{KEY_VARIABLE} holds no API key.",
            remedy="set it to what `driftscope keys create` printed, or unset it.",
        )
    return {"Authorization": f"Bearer {key}"}


def _refusal(response: httpx.Response) -> ApiError:
    if response.headers.get("content-type") != "application/problem+json":
        return ApiError(
            f"{response.url} answered {response.status_code}.",
            remedy="check that --url is the address of a driftscope service.",
        )
    problem = response.json()
    remedy = problem.get("remedy") or f"see {response.url.join(problem['type'])}"
    return ApiError(f"{problem['title']}: {problem['detail']}.", remedy=f"{remedy}")
