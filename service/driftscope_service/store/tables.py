"""Every table, and the ids of their rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from ulid import ULID


def new_id(prefix: Literal["job", "report", "instance", "storage", "notice"]) -> str:
    return f"{prefix}_{ULID()}"


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
RUN_NAME_LENGTH = 128
#: What describes a run: a model name, a dtype.
RUN_TEXT_LENGTH = 200
SHA256_HEX_LENGTH = 64
FILE_NAME_LENGTH = 64
KEY_NAME_LENGTH = 100
KERNEL_NAME_LENGTH = 100
ATTEMPT_ID_LENGTH = 128
TAG_LENGTH = 64
NOTE_LENGTH = 4000
CAUSE_NAME_LENGTH = 64
HOST_LENGTH = 255
ACTION_LENGTH = 64
TARGET_LENGTH = 200


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
    Column("model", String(MODEL_NAME_LENGTH)),  # null: the kind has none
    Column("request", JSON, nullable=False),
    Column("stage", String(PROGRESS_TEXT_LENGTH), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("detail", String(PROGRESS_TEXT_LENGTH), nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("cancel_requested_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    # Times that it was claimed; the number of the newest claim is its fencing token: a write that
    # names an older one is refused.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease_owner", String(ID_LENGTH)),  # an instance; null: nobody works on it
    Column("lease_expires_at", UtcDateTime),
    Column("not_before", UtcDateTime),  # a retry waits until then; null: at once
    Column("created_by", String(ID_LENGTH)),  # a key; null: no keys, a schedule, the command line
    Index(None, "state", "number"),
    sqlite_autoincrement=True,
)

#: Every time that a job was claimed, and how that ended.
job_attempts = Table(
    "job_attempts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),  # 1, 2, 3 …
    Column("owner", String(ID_LENGTH), nullable=False),  # an instance
    Column("host", String(HOST_LENGTH), nullable=False),  # where the probe ran
    Column("executor", String(20), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("outcome", String(20)),  # of AttemptOutcome; null: under way
    Column("reason", JSON(none_as_null=True)),  # {error, message, remedy} unless it succeeded
    Column("log_tail", Text),  # the end of what the probe wrote, where it did not succeed
    UniqueConstraint("job_id", "attempt"),
    sqlite_autoincrement=True,
)

#: Every process of the service that ever started on this database.
instances = Table(
    "instances",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("host", String(HOST_LENGTH), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(40), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("stopped_at", UtcDateTime),
    sqlite_autoincrement=True,
)

#: What one instance at a time may do. `fence` grows with every change of owner.
leases = Table(
    "leases",
    metadata,
    Column("name", String(FILE_NAME_LENGTH), primary_key=True),
    Column("owner", String(ID_LENGTH), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

#: One row: the storage whose files the rows of this database name.
storage_identity = Table(
    "storage_identity",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("storage_id", String(ID_LENGTH), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

#: Who created, revoked, deleted, cancelled or changed something. Rows are only added.
audit_log = Table(
    "audit_log",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(20), nullable=False),  # of Actor: key, anyone, command_line, service
    Column("key_id", String(ID_LENGTH)),  # null: the actor is none
    Column("action", String(ACTION_LENGTH), nullable=False),  # of Action
    Column("target", String(TARGET_LENGTH), nullable=False),  # `run r1`, `key 0a1b`
    Column("detail", JSON(none_as_null=True)),  # small
    Column("request_id", String(ID_LENGTH)),
    Index(None, "at"),
    sqlite_autoincrement=True,
)

reports = Table(
    "reports",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("model", String(MODEL_NAME_LENGTH)),  # null: the kind has none
    Column("summary", JSON, nullable=False),
    Column("file", String(200), nullable=False),  # relative to the data folder
    Column("size_bytes", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # {host, command} of a report that was made elsewhere; null: a job of this service made it
    Column("origin", JSON(none_as_null=True)),
    Column("content_sha256", String(SHA256_HEX_LENGTH)),  # null: stored by an older version
    Index(None, "kind", "model", "number"),
    Index(None, "content_sha256"),
    sqlite_autoincrement=True,
)

#: The last verdict on every kernel, dtype and number of threads, whichever report it came from.
kernel_verdicts = Table(
    "kernel_verdicts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("target", String(KERNEL_NAME_LENGTH), nullable=False),
    Column("op", String(KERNEL_NAME_LENGTH), nullable=False),
    Column("implementation", String(KERNEL_NAME_LENGTH), nullable=False),
    Column("dtype", String(20), nullable=False),
    Column("threads", Integer, nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("report_id", ForeignKey("reports.id"), nullable=False),
    UniqueConstraint("target", "op", "implementation", "dtype", "threads"),
)

#: The last verdict on every axis of an engine, whichever report it came from.
determinism_verdicts = Table(
    "determinism_verdicts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("model", String(MODEL_NAME_LENGTH), nullable=False),
    Column("engine", String(20), nullable=False),
    Column("axis", String(40), nullable=False),
    Column("dtype", String(20), nullable=False),
    Column("kernels", String(20), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("unique_outputs", Integer),  # null where the axis was not run, as all below
    Column("tokens", Integer),
    Column("mismatched_tokens", Integer),
    Column("report_id", ForeignKey("reports.id"), nullable=False),
    UniqueConstraint("model", "engine", "axis", "dtype", "kernels"),
)

#: Every night, run here or submitted; its report has all of it.
nightly_runs = Table(
    "nightly_runs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("report_id", ForeignKey("reports.id"), nullable=False, unique=True),
    Column("config_name", String(MODEL_NAME_LENGTH), nullable=False),
    Column("config_sha256", String(SHA256_HEX_LENGTH), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("outcomes", JSON, nullable=False),  # [{id, verdict, expected, changed, as_expected}]
    UniqueConstraint("config_sha256", "started_at"),
    Index(None, "finished_at"),
)

#: What the service starts by itself. `next_at` is the next due moment, also while it is down.
schedules = Table(
    "schedules",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", String(FILE_NAME_LENGTH), nullable=False, unique=True),
    Column("cron", String(100), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("request", JSON, nullable=False),
    Column("missed", String(20), nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime),
    Column("last_job_id", String(ID_LENGTH)),
    Column("note", String(PROGRESS_TEXT_LENGTH)),  # what became of the last moment, in words
)

runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", String(RUN_NAME_LENGTH), nullable=False, unique=True),
    Column("model", String(RUN_TEXT_LENGTH)),
    Column("framework", String(RUN_TEXT_LENGTH)),
    Column("engine", String(RUN_TEXT_LENGTH)),
    Column("rollout_dtype", String(RUN_TEXT_LENGTH)),
    Column("trainer_dtype", String(RUN_TEXT_LENGTH)),
    Column("labels", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # Grows with every change of any run: the order of the listing, free of clocks.
    Column("activity", Integer, nullable=False, unique=True),
    Column("complete_steps", Integer, nullable=False),  # that the series holds
    Column("last_step", BigInteger),
    Column("last_step_at", UtcDateTime),
    Column("finished_at", UtcDateTime),  # null: it is running, or ended without saying so
    # Over every step that ever came in, those of earlier attempts too: they never fall.
    Column("received_steps", Integer, nullable=False, server_default=text("0")),
    Column("refused_steps", Integer, nullable=False, server_default=text("0")),
    Column("compared_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("nonfinite_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("confident_disagreements", BigInteger, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("1")),  # the newest
    # Grows with every change of its steps or attempts: tells one state of the series from the next.
    Column("revision", Integer, nullable=False, server_default=text("0")),
    Column("note", String(NOTE_LENGTH)),
    Column("pinned_at", UtcDateTime),  # as the baseline of runs of its model
    # Of the last step of the series; null: none, or stored by a version without a diagnosis.
    Column("verdict", String(20)),
    Column("excess", Float),
    Column("cause", String(CAUSE_NAME_LENGTH)),
    Column("confidence", Float),
    Column("crossed", Integer, nullable=False, server_default=text("0")),  # limits
    sqlite_autoincrement=True,
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_number", ForeignKey("runs.number"), primary_key=True),
    Column("tag", String(TAG_LENGTH), primary_key=True),
    Index(None, "tag"),
)

#: Every run has a first one. A later one begins when training is started again under its name.
attempts = Table(
    "attempts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("run_number", ForeignKey("runs.number"), nullable=False),
    Column("attempt", Integer, nullable=False),  # 1, 2, 3 …
    Column("id", String(ATTEMPT_ID_LENGTH)),  # the client's; null: a step that went back opened it
    Column("resumed_from", BigInteger),  # the last step that still holds; null: from scratch
    Column("opened_by", String(20), nullable=False),  # client or step
    Column("started_at", UtcDateTime, nullable=False),
    Column("refused_steps", Integer, nullable=False, server_default=text("0")),
    Column("last_refusal", JSON(none_as_null=True)),  # {"step", "reason", "at"}
    UniqueConstraint("run_number", "attempt"),
    UniqueConstraint("run_number", "id"),
    sqlite_autoincrement=True,
)

#: Complete steps. The analysis is last and compressed: a listing reads none of it.
steps = Table(
    "steps",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("run_number", ForeignKey("runs.number"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("content_sha256", String(SHA256_HEX_LENGTH), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("sequences", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # as received, decoded
    Column("shards", Integer, nullable=False),
    # Bytes on disk now: raw uploads until they are converted, then one Parquet file, then nothing.
    Column("kept_bytes", BigInteger, nullable=False),
    Column("raw_files", JSON(none_as_null=True)),  # [{"file", "format"}], in order of shards
    Column("tokens_file", String(FILE_NAME_LENGTH)),
    Column("crossed", JSON, nullable=False),  # names of metrics
    Column("series", JSON, nullable=False),  # {metric: number or null}
    # {verdict, excess, cause, confidence}; null: stored by a version without a diagnosis
    Column("verdict", JSON(none_as_null=True)),
    Column("metadata", JSON, nullable=False),
    Column("analysis", LargeBinary, nullable=False),  # JSON object, zlib
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    # The attempt whose steps took its place in the series; null: it is in the series.
    Column("superseded_by", Integer),
    UniqueConstraint("run_number", "attempt", "step"),
    Index(None, "run_number", "step"),  # whichever attempt sent it
    Index(
        "ix_steps_current",
        "run_number",
        "step",
        unique=True,
        sqlite_where=text("superseded_by IS NULL"),
        postgresql_where=text("superseded_by IS NULL"),
    ),
    Index(None, "kept_bytes"),
    sqlite_autoincrement=True,
)

#: Parts of a step that arrive one by one; they stay as receipts when the step is complete.
shards = Table(
    "shards",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("run_number", ForeignKey("runs.number"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("shards", Integer, nullable=False),
    Column("content_sha256", String(SHA256_HEX_LENGTH), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("format", String(20), nullable=False),
    Column("file", String(FILE_NAME_LENGTH)),  # null once the step is complete
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    UniqueConstraint("run_number", "attempt", "step", "shard"),
    Index(None, "run_number", "step"),  # whichever attempt sent it
    Index(None, "received_at"),
    sqlite_autoincrement=True,
)

#: That the answer of a run is another one, until the receiver of the webhook has taken it.
notices = Table(
    "notices",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("run", String(RUN_NAME_LENGTH), nullable=False),
    Column("model", String(RUN_TEXT_LENGTH)),
    Column("step", BigInteger, nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("cause", String(CAUSE_NAME_LENGTH)),
    Column("confidence", Float),
    Column("excess", Float),
    Column("previous_verdict", String(20)),  # null: the run had none
    Column("previous_cause", String(CAUSE_NAME_LENGTH)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),  # at sending it, that were begun
    Column("not_before", UtcDateTime),  # of the next one
    Index(None, "run"),
    sqlite_autoincrement=True,
)

#: Keys are never deleted: a revoked one still says who had access until when.
api_keys = Table(
    "api_keys",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("name", String(KEY_NAME_LENGTH), nullable=False),
    Column("secret_sha256", String(SHA256_HEX_LENGTH), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("run_prefix", String(RUN_NAME_LENGTH)),  # null: every run
    Column("requests_per_minute", Integer),  # null: what the settings say
    Column("max_concurrent", Integer),  # requests at once; null: what the settings say
    Column("replaced_by", String(ID_LENGTH)),  # the key that it was rotated into
    sqlite_autoincrement=True,
)

#: What a browser's cookie stands for: never the key itself.
sessions = Table(
    "sessions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("token_sha256", String(SHA256_HEX_LENGTH), nullable=False, unique=True),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,
)
