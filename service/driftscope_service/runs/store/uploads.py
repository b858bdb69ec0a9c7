"""Received uploads: raw files on disk, and shards of open steps in the database."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update
from ulid import ULID

from driftscope_probes.durable_file import publish
from driftscope_service.store.tables import shards, steps

_PART = ".part"
_log = logging.getLogger("driftscope")


class StepFiles:
    def __init__(self, data_dir: Path) -> None:
        self._incoming = data_dir / "incoming"
        self._steps = data_dir / "steps"

    def new_part(self) -> Path:
        """An unused path for an upload."""
        self._incoming.mkdir(exist_ok=True)
        return self._incoming / f"{ULID()}{_PART}"

    def accept(self, part: Path) -> str:
        """Move a part that is on disk to its lasting name, and return that."""
        self._steps.mkdir(exist_ok=True)
        name = f"{part.stem}.raw"
        publish(part, self._steps / name)
        return name

    def new_tokens_file(self) -> str:
        return f"{ULID()}.parquet"

    def path(self, name: str) -> Path:
        return self._steps / name

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def sweep(self, referenced: Iterable[str]) -> None:
        """Remove what a killed service left: parts, and files that no row names."""
        kept = set(referenced)
        left = list(self._incoming.glob("*"))
        left += [path for path in self._steps.glob("*") if path.name not in kept]
        for path in left:
            path.unlink()
        if left:
            _log.warning("files of unfinished uploads removed: %d", len(left))


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
