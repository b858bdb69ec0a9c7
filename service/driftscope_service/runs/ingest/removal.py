"""Deletes a run or a step of a running service: safe against uploads and conversions under way.

An upload of what is being deleted ends first, or waits: what arrives afterwards is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy import Connection

from driftscope_service.auth.audit import Action, AuditLog, Who
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.store.removal import Removed, remove_run, remove_step


async def delete_run(intake: Intake, run: str, who: Who) -> Removed | None:
    """None where there is none."""

    def remove(connection: Connection) -> Removed | None:
        removed = remove_run(connection, run)
        if removed is not None:
            _audit(connection, who, Action.RUN_DELETED, f"run {run}", removed)
        return removed

    async with intake.locks.hold_run(run):
        return await asyncio.to_thread(_committed, intake, remove)


async def delete_step(
    intake: Intake, run: str, step: int, attempt: int | None, who: Who
) -> Removed | None:
    """`attempt`: None: the newest that has the step."""

    def remove(connection: Connection) -> Removed | None:
        removed = remove_step(connection, run, step, attempt)
        settle_answer(connection, run)  # of what is now the last step
        if removed is not None:
            target = f"step {step} of run {run}"
            _audit(connection, who, Action.STEP_DELETED, target, removed, attempt=attempt)
        return removed

    async with intake.locks.hold(run, step):
        return await asyncio.to_thread(_committed, intake, remove)


def _committed(intake: Intake, remove: Callable[[Connection], Removed | None]) -> Removed | None:
    with intake.database.write() as connection:
        removed = remove(connection)
    if removed is not None:
        # Only now: the transaction might have failed, and the rows would name what is gone.
        intake.files.remove(removed.files)
    return removed


def _audit(
    connection: Connection,
    who: Who,
    action: Action,
    target: str,
    removed: Removed,
    attempt: int | None = None,
) -> None:
    numbers = {
        "steps": removed.steps,
        "files": len(removed.files),
        "freed_bytes": removed.freed_bytes,
    }
    if attempt is not None:
        numbers["attempt"] = attempt
    AuditLog(connection).add(who, action, target, **numbers)
