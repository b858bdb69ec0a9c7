"""Runs, the steps pushed for them, and the shards of steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("framework", sa.String(200)),
        sa.Column("engine", sa.String(200)),
        sa.Column("rollout_dtype", sa.String(200)),
        sa.Column("trainer_dtype", sa.String(200)),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("activity", sa.Integer(), nullable=False),
        sa.Column("complete_steps", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.BigInteger()),
        sa.Column("last_step_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("number", name="pk_runs"),
        sa.UniqueConstraint("name", name="uq_runs_name"),
        sa.UniqueConstraint("activity", name="uq_runs_activity"),
        sqlite_autoincrement=True,
    )
    _create_steps()
    _create_shards()


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("sequences", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("kept_bytes", sa.BigInteger(), nullable=False),
        sa.Column("raw_files", sa.JSON(none_as_null=True)),
        sa.Column("tokens_file", sa.String(64)),
        sa.Column("crossed", sa.JSON(), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("analysis", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_steps"),
        sa.UniqueConstraint("run_number", "step", name="uq_steps_run_number_step"),
        sa.ForeignKeyConstraint(["run_number"], ["runs.number"], name="fk_steps_run_number_runs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_steps_kept_bytes", "steps", ["kept_bytes"])


def _create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.String(20), nullable=False),
        sa.Column("file", sa.String(64)),
        sa.PrimaryKeyConstraint("number", name="pk_shards"),
        sa.UniqueConstraint("run_number", "step", "shard", name="uq_shards_run_number_step_shard"),
        sa.ForeignKeyConstraint(["run_number"], ["runs.number"], name="fk_shards_run_number_runs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_shards_received_at", "shards", ["received_at"])


def downgrade() -> None:
    op.drop_table("shards")
    op.drop_table("steps")
    op.drop_table("runs")
