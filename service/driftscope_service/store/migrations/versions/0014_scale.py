"""Attempts and leases of jobs, several instances, the identity of the storage, the audit log, and
more about keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_JOB_COLUMNS = (
    ("lease_owner", sa.String(40)),
    ("lease_expires_at", sa.DateTime()),
    ("not_before", sa.DateTime()),
    ("created_by", sa.String(40)),
)
_KEY_COLUMNS = (
    ("run_prefix", sa.String(128)),
    ("requests_per_minute", sa.Integer()),
    ("max_concurrent", sa.Integer()),
    ("replaced_by", sa.String(40)),
)
_TABLES = ("sessions", "audit_log", "storage_identity", "leases", "instances", "job_attempts")


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("attempt", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    for name, of_job in _JOB_COLUMNS:
        op.add_column("jobs", sa.Column(name, of_job))
    for name, of_key in _KEY_COLUMNS:
        op.add_column("api_keys", sa.Column(name, of_key))
    _jobs_and_instances()
    _access()


def _jobs_and_instances() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("executor", sa.String(20), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime()),
        sa.Column("outcome", sa.String(20)),
        sa.Column("reason", sa.JSON()),
        sa.Column("log_tail", sa.Text()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_job_attempts")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_attempts_job_id_jobs")),
        sa.UniqueConstraint("job_id", "attempt", name=op.f("uq_job_attempts_job_id_attempt")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instances",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.Column("stopped_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_instances")),
        sa.UniqueConstraint("id", name=op.f("uq_instances_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "storage_identity",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("storage_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_storage_identity")),
    )


def _access() -> None:
    op.create_table(
        "audit_log",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.String(20), nullable=False),
        sa.Column("key_id", sa.String(40)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("detail", sa.JSON()),
        sa.Column("request_id", sa.String(40)),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_log")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"])
    op.create_table(
        "sessions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_sessions")),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_sessions_key_id_api_keys")
        ),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_sessions_token_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    for name, _ in _KEY_COLUMNS:
        op.drop_column("api_keys", name)
    for name, _ in _JOB_COLUMNS:
        op.drop_column("jobs", name)
    op.drop_column("jobs", "attempt")
