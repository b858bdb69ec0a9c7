"""Deletes a run or a step of a running service: safe against uploads and conversions under way.

An upload of what is being deleted ends first, or waits: what arrives afterwards is new.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy import Connection

from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.store.removal import Removed, remove_run, remove_step

_log = logging.getLogger("driftscope")


async def delete_run(intake: Intake, run: str, *, asked_by: str) -> Removed | None:
    """None where there is none. `asked_by`: who, for the log."""
    async with intake.locks.hold_run(run):
        removed = await asyncio.to_thread(
            _committed, intake, lambda connection: remove_run(connection, run)
        )
    if removed is not None:
        _note(f"run {run}", removed, asked_by)
    return removed


async def delete_step(
    intake: Intake, run: str, step: int, attempt: int | None, *, asked_by: str
) -> Removed | None:
    """`attempt`: None: the newest that has the step."""

    def remove(connection: Connection) -> Removed | None:
        removed = remove_step(connection, run, step, attempt)
        settle_answer(connection, run)  # of what is now the last step
        return removed

    async with intake.locks.hold(run, step):
        removed = await asyncio.to_thread(_committed, intake, remove)
    if removed is not None:
        of = "" if attempt is None else f" of attempt {attempt}"
        _note(f"step {step}{of} of run {run}", removed, asked_by)
    return removed


def _committed(intake: Intake, remove: Callable[[Connection], Removed | None]) -> Removed | None:
    with intake.database.write() as connection:
        removed = remove(connection)
    if removed is not None:
        # Only now: the transaction might have failed, and the rows would name what is gone.
        intake.files.remove(removed.files)
    return removed


def _note(what: str, removed: Removed, asked_by: str) -> None:
    _log.info(
        "deleted: %s; steps %d, files %d, bytes %d; by %s",
        *(what, removed.steps, len(removed.files), removed.freed_bytes, asked_by),
    )
