"""Deletes a run or a step of a running service: safe against uploads and conversions under way.

An upload of what is being deleted ends first, or waits: what arrives afterwards is new.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from driftscope_service.auth.audit import Action, AuditLog, Who
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.store.removal import Removed, remove_run, remove_step

_log = logging.getLogger("driftscope")


async def delete_run(intake: Intake, run: str, who: Who) -> Removed | None:
    """None where there is none."""
    entry = _Entry(who, Action.RUN_DELETED, f"run {run}")
    async with intake.locks.hold_run(run):
        return await asyncio.to_thread(
            _committed, intake, entry, lambda connection: remove_run(connection, run)
        )


async def delete_step(
    intake: Intake, run: str, step: int, attempt: int | None, who: Who
) -> Removed | None:
    """`attempt`: None: the newest that has the step."""

    def remove(connection: Connection) -> Removed | None:
        removed = remove_step(connection, run, step, attempt)
        settle_answer(connection, run)  # of what is now the last step
        return removed

    of = "" if attempt is None else f" of attempt {attempt}"
    entry = _Entry(who, Action.STEP_DELETED, f"step {step}{of} of run {run}")
    async with intake.locks.hold(run, step):
        return await asyncio.to_thread(_committed, intake, entry, remove)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Of the audit log, but for what was removed."""

    who: Who
    action: Action
    target: str

    def write(self, connection: Connection, removed: Removed) -> None:
        AuditLog(connection).add(
            self.who,
            self.action,
            self.target,
            steps=removed.steps,
            files=len(removed.files),
            freed_bytes=removed.freed_bytes,
        )

    def log(self, removed: Removed) -> None:
        _log.info(
            "deleted: %s; steps %d, files %d, bytes %d; by %s",
            *(self.target, removed.steps, len(removed.files), removed.freed_bytes, self.who.words),
        )


def _committed(
    intake: Intake, entry: _Entry, remove: Callable[[Connection], Removed | None]
) -> Removed | None:
    with intake.database.write() as connection:
        removed = remove(connection)
        if removed is not None:
            entry.write(connection, removed)
    if removed is not None:
        # Only now: the transaction might have failed, and the rows would name what is gone.
        intake.files.remove(removed.files)
        entry.log(removed)
    return removed
