"""Where the tokens of one step lie, and which steps are beside it. In: run and step. Out: rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from driftscope_service.store.step_repository import RawFile
from driftscope_service.store.tables import runs, steps


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """raw_files until they are converted, then tokens_file, then neither."""

    number: int  # of the step, never used again
    tokens: int
    sequences: int
    raw_files: list[RawFile] | None
    tokens_file: str | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    before: int | None
    after: int | None


def token_place(connection: Connection, run: str, step: int) -> TokenPlace | None:
    """None where there is no such complete step."""
    names = TokenPlace.__dataclass_fields__
    row = connection.execute(
        select(*(steps.c[name] for name in names))
        .join_from(steps, runs)
        .where(runs.c.name == run, steps.c.step == step)
    ).one_or_none()
    return None if row is None else TokenPlace(*row)


def neighbours(connection: Connection, run_number: int, step: int) -> Neighbours:
    of_run = steps.c.run_number == run_number
    before = select(func.max(steps.c.step)).where(of_run, steps.c.step < step)
    after = select(func.min(steps.c.step)).where(of_run, steps.c.step > step)
    return Neighbours(
        connection.execute(before).scalar_one(), connection.execute(after).scalar_one()
    )
