"""The shard table: parts of steps that arrive one by one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, exists, insert, select, update

from driftscope_service.store.tables import shards, steps


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

    def of_step(self, run_number: int, step: int) -> list[Shard]:
        """In order of shards."""
        rows = self._connection.execute(
            select(*(shards.c[field.name] for field in fields(Shard)))
            .where(shards.c.run_number == run_number, shards.c.step == step)
            .order_by(shards.c.shard)
        )
        return [Shard(*row) for row in rows]

    def completed(self, run_number: int, step: int) -> None:
        """Their files belong to the step from now on."""
        self._connection.execute(
            update(shards)
            .where(shards.c.run_number == run_number, shards.c.step == step)
            .values(file=None)
        )

    def files(self) -> list[str]:
        """Of all shards of open steps."""
        rows = self._connection.execute(select(shards.c.file).where(shards.c.file.is_not(None)))
        return [row.file for row in rows]

    def abandon(self, before: datetime) -> list[str]:
        """Forget open steps to which nothing was added since `before`; returns their files."""
        every = shards.alias()
        later = exists().where(
            every.c.run_number == shards.c.run_number,
            every.c.step == shards.c.step,
            every.c.received_at >= before,
        )
        complete = exists().where(
            steps.c.run_number == shards.c.run_number, steps.c.step == shards.c.step
        )
        rows = self._connection.execute(
            delete(shards)
            .where(shards.c.received_at < before, ~later, ~complete)
            .returning(shards.c.file)
        )
        return [row.file for row in rows]
