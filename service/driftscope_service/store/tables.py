"""The tables of the service: jobs and reports. Schema changes go through `store/migrations`."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

#: Batch migrations on SQLite can only change a constraint that has a name.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
#: A ULID has 26 characters; the rest is for the prefix.
ID_LENGTH = 40
MODEL_NAME_LENGTH = 100
PROGRESS_TEXT_LENGTH = 200


class UtcDateTime(TypeDecorator[datetime]):
    """A time with zone in Python, the same moment in UTC without zone in the database."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "a time without zone is ambiguous"
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData(naming_convention=NAMES)

#: `number` is the order of arrival: unlike a time it never goes back when the clock does.
jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("model", String(MODEL_NAME_LENGTH), nullable=False),
    Column("request", JSON, nullable=False),
    Column("stage", String(PROGRESS_TEXT_LENGTH), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("detail", String(PROGRESS_TEXT_LENGTH), nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("cancel_requested_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Index(None, "state", "number"),
    sqlite_autoincrement=True,
)

reports = Table(
    "reports",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("model", String(MODEL_NAME_LENGTH), nullable=False),
    Column("summary", JSON, nullable=False),
    Column("file", String(200), nullable=False),  # relative to the data folder
    Column("size_bytes", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "kind", "model", "number"),
    sqlite_autoincrement=True,
)
