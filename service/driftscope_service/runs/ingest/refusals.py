"""Steps that a known run sent and that were not taken: counted on its attempt, and said there.

A body that could not come in for a while (no slot, no disk, no database) is sent again, and counts
nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from driftscope_probes.push.rules import PushError
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.store.attempts import AttemptRepository
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.store.database import Database

#: Sending the same again will not help.
FINAL: Final = (
    problem_kinds.STEP_CONFLICT,
    problem_kinds.MALFORMED_STEP,
    problem_kinds.CONTENT_TOO_LARGE,
    problem_kinds.UNSUPPORTED_MEDIA_TYPE,
)
MOST_REASON_CHARACTERS: Final = 300


@asynccontextmanager
async def counted_refusals(
    database: Database, run: str, step: int, attempt: str | None
) -> AsyncIterator[None]:
    """`attempt`: the id that the push names."""
    try:
        yield
    except (ServiceError, PushError) as error:
        kind = error.kind if isinstance(error, ServiceError) else problem_kinds.MALFORMED_STEP
        if kind in FINAL:
            reason = error.detail if isinstance(error, ServiceError) else error.message
            await asyncio.to_thread(_note, database, run, step, attempt, kind.slug, reason)
        raise


def _note(
    database: Database, run: str, step: int, attempt: str | None, problem: str, reason: str
) -> None:
    with database.write() as connection:
        runs = RunRepository(connection)
        found = runs.get(run)
        if found is None:
            return  # a refused step makes no run
        numbers = {
            one.id: one.attempt for one in AttemptRepository(connection).of_run(found.number)
        }
        into = found.attempt if attempt is None else numbers.get(attempt, found.attempt)
        runs.step_refused(
            found, into, step, problem=problem, reason=reason[:MOST_REASON_CHARACTERS]
        )
