"""Attempts of a run: a step may arrive again in a later one. What is there is the first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_RUNS = sa.table(
    "runs",
    sa.column("number"),
    sa.column("created_at", sa.DateTime()),
)
_FIRST = sa.text("1")


def upgrade() -> None:
    attempts = op.create_table(
        "attempts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(128)),
        sa.Column("resumed_from", sa.BigInteger()),
        sa.Column("opened_by", sa.String(20), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("refused_steps", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("last_refusal", sa.JSON()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_attempts")),
        sa.ForeignKeyConstraint(
            ["run_number"], ["runs.number"], name=op.f("fk_attempts_run_number_runs")
        ),
        sa.UniqueConstraint("run_number", "attempt", name=op.f("uq_attempts_run_number_attempt")),
        sa.UniqueConstraint("run_number", "id", name=op.f("uq_attempts_run_number_id")),
        sqlite_autoincrement=True,
    )
    for name in ("attempt", "revision"):
        default = _FIRST if name == "attempt" else sa.text("0")
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default=default))
    op.execute(
        attempts.insert().from_select(
            ["run_number", "attempt", "opened_by", "started_at"],
            sa.select(_RUNS.c.number, sa.literal(1), sa.literal("step"), _RUNS.c.created_at),
        )
    )
    with op.batch_alter_table("steps") as batch:
        batch.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default=_FIRST))
        batch.add_column(sa.Column("superseded_by", sa.Integer()))
        batch.drop_constraint("uq_steps_run_number_step", type_="unique")
        batch.create_unique_constraint(
            "uq_steps_run_number_attempt_step", ["run_number", "attempt", "step"]
        )
    op.create_index(
        "ix_steps_current",
        "steps",
        ["run_number", "step"],
        unique=True,
        sqlite_where=sa.text("superseded_by IS NULL"),
        postgresql_where=sa.text("superseded_by IS NULL"),
    )
    with op.batch_alter_table("shards") as batch:
        batch.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default=_FIRST))
        batch.drop_constraint("uq_shards_run_number_step_shard", type_="unique")
        batch.create_unique_constraint(
            "uq_shards_run_number_attempt_step_shard", ["run_number", "attempt", "step", "shard"]
        )


def downgrade() -> None:
    # Steps of later attempts have no place in the older schema.
    op.execute("DELETE FROM steps WHERE superseded_by IS NOT NULL")
    op.drop_index("ix_steps_current", "steps")
    with op.batch_alter_table("shards") as batch:
        batch.drop_constraint("uq_shards_run_number_attempt_step_shard", type_="unique")
        batch.drop_column("attempt")
        batch.create_unique_constraint(
            "uq_shards_run_number_step_shard", ["run_number", "step", "shard"]
        )
    with op.batch_alter_table("steps") as batch:
        batch.drop_constraint("uq_steps_run_number_attempt_step", type_="unique")
        batch.drop_column("superseded_by")
        batch.drop_column("attempt")
        batch.create_unique_constraint("uq_steps_run_number_step", ["run_number", "step"])
    for name in ("revision", "attempt"):
        op.drop_column("runs", name)
    op.drop_table("attempts")
