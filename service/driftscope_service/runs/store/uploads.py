"""Received uploads: their files in the storage, and shards of open steps in the database."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update
from ulid import ULID

from driftscope_service.store.storage.base import STEPS, Storage
from driftscope_service.store.tables import shards, steps

_PART: Final = ".part"
_TOKENS: Final = ".parquet"
#: Whatever is called otherwise in the folder is somebody else's.
_INCOMING: Final = re.compile(r"[0-9A-Z]{26}\.(part|parquet)(\.partial)?")
_log = logging.getLogger("driftscope")


class StepFiles:
    """A file is made in the data folder, and then put into the storage under its lasting name."""

    def __init__(self, data_dir: Path, storage: Storage) -> None:
        self._incoming = data_dir / "incoming"
        self._storage = storage

    def new_part(self) -> Path:
        """An unused path for an upload."""
        return self._new(_PART)

    def new_tokens_part(self) -> Path:
        """An unused path for a file of tokens."""
        return self._new(_TOKENS)

    def accept(self, part: Path) -> str:
        """Put a part into the storage, where it is durable, and return its name there."""
        name = part.name if part.suffix == _TOKENS else f"{part.stem}.raw"
        self._storage.put(f"{STEPS}/{name}", part)
        return name

    def path(self, name: str) -> Path:
        """A local file with the content. Raises FileNotFoundError."""
        return self._storage.path(f"{STEPS}/{name}")

    def remove(self, names: Iterable[str]) -> None:
        self._storage.remove(f"{STEPS}/{name}" for name in names)

    def sweep_incoming(self) -> None:
        """Remove what a killed service left half received; the folder is that of one service."""
        left = [path for path in self._incoming.glob("*") if _INCOMING.fullmatch(path.name)]
        for path in left:
            path.unlink(missing_ok=True)
        if left:
            _log.warning("files of unfinished uploads removed: %d", len(left))

    def _new(self, suffix: str) -> Path:
        self._incoming.mkdir(exist_ok=True)
        return self._incoming / f"{ULID()}{suffix}"


@dataclass(frozen=True, slots=True)
class Shard:
    step: int
    shard: int
    shards: int  # how many make the step
    content_sha256: str
    tokens: int
    size_bytes: int
    format: str
    file: str | None  # None once the step is complete
    attempt: int = 1


class ShardRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, run_number: int, shard: Shard) -> None:
        self._connection.execute(
            insert(shards).values(
                run_number=run_number,
                received_at=datetime.now(UTC),
                **{field.name: getattr(shard, field.name) for field in fields(shard)},
            )
        )

    def of_step(self, run_number: int, step: int, *, attempt: int = 1) -> list[Shard]:
        """In order of shards."""
        rows = self._connection.execute(
            select(*(shards.c[field.name] for field in fields(Shard)))
            .where(_of_step(run_number, step), shards.c.attempt == attempt)
            .order_by(shards.c.shard)
        )
        return [Shard(*row) for row in rows]

    def attempts_with(self, run_number: int, step: int) -> list[int]:
        """The attempts that have shards of this step, once or several times."""
        rows = self._connection.execute(select(shards.c.attempt).where(_of_step(run_number, step)))
        return [row.attempt for row in rows]

    def completed(self, run_number: int, step: int, *, attempt: int = 1) -> None:
        """Their files belong to the step from now on."""
        self._connection.execute(
            update(shards)
            .where(_of_step(run_number, step), shards.c.attempt == attempt)
            .values(file=None)
        )

    def files(self) -> list[str]:
        """Files of all shards of open steps."""
        rows = self._connection.execute(select(shards.c.file).where(shards.c.file.is_not(None)))
        return [row.file for row in rows]

    def abandon(self, before: datetime) -> list[str]:
        """Forget open steps to which nothing was added since `before`; returns their files."""
        every = shards.alias()
        later = exists().where(
            every.c.run_number == shards.c.run_number,
            every.c.step == shards.c.step,
            every.c.attempt == shards.c.attempt,
            every.c.received_at >= before,
        )
        complete = exists().where(
            steps.c.run_number == shards.c.run_number,
            steps.c.step == shards.c.step,
            steps.c.attempt == shards.c.attempt,
        )
        rows = self._connection.execute(
            delete(shards)
            .where(shards.c.received_at < before, ~later, ~complete)
            .returning(shards.c.file)
        )
        return [row.file for row in rows]


def _of_step(run_number: int, step: int) -> ColumnElement[bool]:
    return and_(shards.c.run_number == run_number, shards.c.step == step)
