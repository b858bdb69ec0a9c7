"""Which files of a storage the rows of the database name: what a sweep keeps and a backup takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from driftscope_service.store.storage.base import STEPS
from driftscope_service.store.tables import reports, shards, steps


@dataclass(frozen=True, slots=True)
class NamedFile:
    name: str  # in the storage
    size_bytes: int | None = None  # None: the row does not say


def named_files(connection: Connection, most: int | None = None) -> Iterator[NamedFile]:
    """Every file that a row names, newest row first in each table, of `most` rows each. Of a report
    its report.json: the row names no other, and they lie beside it."""
    kept = select(steps.c.raw_files, steps.c.tokens_file, steps.c.kept_bytes)
    newest = kept.where(steps.c.kept_bytes > 0).order_by(steps.c.number.desc()).limit(most)
    for raw_files, tokens_file, size in connection.execute(newest):
        for raw in raw_files or ():
            yield NamedFile(f"{STEPS}/{raw['file']}", size if len(raw_files) == 1 else None)
        if tokens_file is not None:
            yield NamedFile(f"{STEPS}/{tokens_file}", size)
    open_shards = select(shards.c.file, shards.c.size_bytes).where(shards.c.file.is_not(None))
    for file, size in connection.execute(open_shards.order_by(shards.c.number.desc()).limit(most)):
        yield NamedFile(f"{STEPS}/{file}", size)
    every = select(reports.c.file, reports.c.size_bytes).order_by(reports.c.number.desc())
    for file, size in connection.execute(every.limit(most)):
        yield NamedFile(file, size)


def report_folders(connection: Connection) -> set[str]:
    """Each has report.json and the files that it names."""
    return {report_folder(row.file) for row in connection.execute(select(reports.c.file))}


def report_folder(name: str) -> str:
    """The folder that a file of a report lies in."""
    return "/".join(name.split("/")[:2])
