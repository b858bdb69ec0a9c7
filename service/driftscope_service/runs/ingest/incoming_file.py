"""A request's body, streamed into an IncomingFile while it arrives.

In: the request and its limits. Out: Received; on any failure the file is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError
from driftscope_service.ingest.incoming_file import IncomingFile, Received

#: Sixteen times what the server hands over at once: few hops to a thread, little memory.
BATCH_BYTES = 2**20


@asynccontextmanager
async def received_body(
    request: Request, file: IncomingFile, *, idle_timeout_s: float
) -> AsyncIterator[Received]:
    """The file exists within the context only, unless it is moved elsewhere there."""
    try:
        yield await _receive(request, file, idle_timeout_s)
    finally:
        # Shielded: a service that ends cancels the request, and the file has to go all the same.
        await asyncio.shield(asyncio.to_thread(file.discard))


async def _receive(request: Request, file: IncomingFile, idle_timeout_s: float) -> Received:
    # While one batch is decoded, hashed and written, the next one arrives.
    writing: asyncio.Task[None] | None = None
    try:
        async for batch in _batches(request, idle_timeout_s):
            if writing is not None:
                await writing
            writing = asyncio.create_task(asyncio.to_thread(file.write, batch))
        if writing is not None:
            await writing
    finally:
        # Where the body ended otherwise, what became of the last write matters to nobody.
        if writing is not None and not writing.cancel() and not writing.cancelled():
            writing.exception()
    return await asyncio.to_thread(file.finish)


async def _batches(request: Request, idle_timeout_s: float) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    size = 0
    async for chunk in _chunks(request, idle_timeout_s):
        parts.append(chunk)
        size += len(chunk)
        if size >= BATCH_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _chunks(request: Request, idle_timeout_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ServiceError(
                problem_kinds.UPLOAD_TIMEOUT,
                f"nothing of the body arrived for {idle_timeout_s:g} seconds",
                # What may still come belongs to no request any more.
                headers={"Connection": "close"},
            ) from None
        except ClientDisconnect:
            # Nobody reads this answer; it only ends the request like any other failure.
            raise ServiceError(
                problem_kinds.MALFORMED_REQUEST, "the connection ended within the body"
            ) from None
        if chunk is None:
            return
        yield chunk
