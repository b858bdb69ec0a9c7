"""One attempt at sending a notice: what is sent, how long it may take, what its answer means.

In: Notice and Webhook. Out: None where it was taken, or Refused. The address is in none of its
words, since it may hold a secret, as Slack's does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import httpx

from driftscope_service.runs.webhook.body import Webhook, body_of, headers_of
from driftscope_service.runs.webhook.notices import Notice

#: For one operation on the connection, and for all of them: chats answer within a second.
TIMEOUT_S: Final = 10.0
TOTAL_S: Final = 20.0
#: What a receiver may ask for in Retry-After.
MOST_WAIT_S: Final = 3600.0
#: Of an answer, for the log: a receiver says what it did not like in the first line.
MOST_READ: Final = 1024
MOST_SHOWN: Final = 200
_TRY_AGAIN: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a receiver did not take a notice."""

    words: str
    again: bool
    wait_s: float | None = None  # None: as the number of attempts has it


async def posted(notice: Notice, webhook: Webhook) -> Refused | None:
    """Redirects are not followed: the operator named this address and no other."""
    body = body_of(notice, webhook)
    headers = headers_of(notice, webhook, body, int(time.time()))
    try:
        async with (
            asyncio.timeout(TOTAL_S),
            httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream("POST", webhook.url, content=body, headers=headers) as response,
        ):
            return await _refusal(response, webhook)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        return Refused(f"no answer ({type(error).__name__})", again=True)


async def _refusal(response: httpx.Response, webhook: Webhook) -> Refused | None:
    status = response.status_code
    if 200 <= status < 300:
        return None
    if response.is_redirect:
        words = f"status {status}, and redirects are not followed: set the address it leads to"
        return Refused(words, again=False)
    words = f"status {status}: {await _first_line(response, webhook)}"
    again = status >= 500 or status in _TRY_AGAIN
    return Refused(words, again, _retry_after_s(response) if again else None)


async def _first_line(response: httpx.Response, webhook: Webhook) -> str:
    """Of the first piece that arrives; nothing more is read, whatever the receiver sends."""
    piece = await anext(response.aiter_raw(), b"")
    line = next(iter(piece[:MOST_READ].decode("utf-8", "replace").splitlines()), "")
    shown = "".join(letter for letter in line if letter.isprintable())[:MOST_SHOWN]
    secrets = (webhook.url, webhook.secret, httpx.URL(webhook.url).raw_path.decode())
    if any(len(one) > 1 and one in shown for one in secrets):
        return "words that repeat the address or the secret"
    return shown or "no words"


def _retry_after_s(response: httpx.Response) -> float | None:
    given = response.headers.get("Retry-After", "")
    return min(float(given), MOST_WAIT_S) if given.isascii() and given.isdecimal() else None
