"""Runs and steps taken out of the database, with every row that refers to them.

Out: the files that nothing names any more, for whoever commits to remove afterwards: a file without
a row is swept away at the next start, a row without its file would be a lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from driftscope_service.runs.store.attempts import in_series
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.store.tables import attempts, run_tags, runs, shards, steps


@dataclass(frozen=True, slots=True)
class Removed:
    steps: int  # complete ones
    files: tuple[str, ...]  # in the folder of StepFiles
    freed_bytes: int  # of tokens on disk; of shards of open steps as received


def remove_run(connection: Connection, name: str) -> Removed | None:
    """None where there is none. Whether it is the baseline of its model stands in its own row."""
    run = RunRepository(connection).get(name)
    if run is None:
        return None
    removed = _remove(
        connection, steps.c.run_number == run.number, shards.c.run_number == run.number
    )
    for table in (attempts, run_tags):
        connection.execute(delete(table).where(table.c.run_number == run.number))
    connection.execute(delete(runs).where(runs.c.number == run.number))
    return removed


def remove_step(
    connection: Connection, name: str, step: int, attempt: int | None = None
) -> Removed | None:
    """Complete or open, of the attempt; None: of the series. None where there is none: said twice,
    it takes nothing of an older attempt, whose steps stay with it outside the series. The number
    may be pushed again; the totals of the run, which are counters, stay."""
    run = RunRepository(connection).get(name)
    if run is None:
        return None
    if attempt is None:
        attempt = _shown_attempt(connection, run, step)
    if attempt is None:
        return None
    of_step, of_shards = (
        and_(
            table.c.run_number == run.number,
            table.c.step == step,
            table.c.attempt == attempt,
        )
        for table in (steps, shards)
    )
    removed = _remove(connection, of_step, of_shards)
    if not removed.steps and not removed.files:
        return None
    RunRepository(connection).series_changed(run.number)
    of_run = select(func.max(steps.c.received_at)).where(steps.c.run_number == run.number)
    connection.execute(
        update(runs)
        .where(runs.c.number == run.number)
        .values(last_step_at=of_run.scalar_subquery())
    )
    return removed


def _shown_attempt(connection: Connection, run: Run, step: int) -> int | None:
    """Whose step the series has, or would have once its shards are there."""
    complete: int | None = connection.execute(
        select(steps.c.attempt).where(in_series(run.number), steps.c.step == step)
    ).scalar_one_or_none()
    if complete is not None:
        return complete
    started: int | None = connection.execute(
        select(shards.c.attempt)
        .where(
            shards.c.run_number == run.number,
            shards.c.step == step,
            shards.c.attempt == run.attempt,
            shards.c.file.is_not(None),
        )
        .limit(1)
    ).scalar_one_or_none()
    return started


def _remove(
    connection: Connection, of_steps: ColumnElement[bool], of_shards: ColumnElement[bool]
) -> Removed:
    gone = connection.execute(
        delete(steps)
        .where(of_steps)
        .returning(steps.c.raw_files, steps.c.tokens_file, steps.c.kept_bytes)
    ).all()
    receipts = connection.execute(
        delete(shards).where(of_shards).returning(shards.c.file, shards.c.size_bytes)
    ).all()
    open_shards = [(file, size) for file, size in receipts if file is not None]
    files = [file for file, _ in open_shards]
    for raw_files, tokens_file, _ in gone:
        files += _files(raw_files, tokens_file)
    freed = sum(size for _, size in open_shards) + sum(kept for _, _, kept in gone)
    return Removed(len(gone), tuple(files), freed)


def _files(raw_files: Sequence[dict[str, str]] | None, tokens_file: str | None) -> list[str]:
    raw = [one["file"] for one in raw_files or ()]
    return raw if tokens_file is None else [*raw, tokens_file]
