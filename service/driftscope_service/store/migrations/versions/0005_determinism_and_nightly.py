"""Verdicts of determinism probes, nights, and what the service starts by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "determinism_verdicts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("engine", sa.String(20), nullable=False),
        sa.Column("axis", sa.String(40), nullable=False),
        sa.Column("dtype", sa.String(20), nullable=False),
        sa.Column("kernels", sa.String(20), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("unique_outputs", sa.Integer()),
        sa.Column("tokens", sa.Integer()),
        sa.Column("mismatched_tokens", sa.Integer()),
        sa.Column("report_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_determinism_verdicts"),
        sa.UniqueConstraint(
            *("model", "engine", "axis", "dtype", "kernels"),
            name="uq_determinism_verdicts_model_engine_axis_dtype_kernels",
        ),
        sa.ForeignKeyConstraint(
            ["report_id"], ["reports.id"], name="fk_determinism_verdicts_report_id_reports"
        ),
    )
    op.create_table(
        "nightly_runs",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.String(40), nullable=False),
        sa.Column("config_name", sa.String(100), nullable=False),
        sa.Column("config_sha256", sa.String(64), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_nightly_runs"),
        sa.UniqueConstraint("report_id", name="uq_nightly_runs_report_id"),
        sa.UniqueConstraint(
            "config_sha256", "started_at", name="uq_nightly_runs_config_sha256_started_at"
        ),
        sa.ForeignKeyConstraint(
            ["report_id"], ["reports.id"], name="fk_nightly_runs_report_id_reports"
        ),
    )
    op.create_index("ix_nightly_runs_finished_at", "nightly_runs", ["finished_at"])
    op.create_table(
        "schedules",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("cron", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("missed", sa.String(20), nullable=False),
        sa.Column("next_at", sa.DateTime(), nullable=False),
        sa.Column("last_at", sa.DateTime()),
        sa.Column("last_job_id", sa.String(40)),
        sa.Column("note", sa.String(200)),
        sa.PrimaryKeyConstraint("number", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )


def downgrade() -> None:
    for table in ("schedules", "nightly_runs", "determinism_verdicts"):
        op.drop_table(table)
