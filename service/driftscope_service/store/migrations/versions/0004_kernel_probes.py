"""Probes without a model, and the verdicts of kernel checks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_WITH_MODEL = ("jobs", "reports")
#: SQLite rebuilds the table to change a column; it would forget this.
_KEPT = {"sqlite_autoincrement": True}


def upgrade() -> None:
    for table in _WITH_MODEL:
        with op.batch_alter_table(table, table_kwargs=_KEPT) as batch:
            batch.alter_column("model", existing_type=sa.String(100), nullable=True)
    op.create_table(
        "kernel_verdicts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(100), nullable=False),
        sa.Column("op", sa.String(100), nullable=False),
        sa.Column("implementation", sa.String(100), nullable=False),
        sa.Column("dtype", sa.String(20), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("report_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_kernel_verdicts"),
        sa.UniqueConstraint(
            *("target", "op", "implementation", "dtype", "threads"),
            name="uq_kernel_verdicts_target_op_implementation_dtype_threads",
        ),
        sa.ForeignKeyConstraint(
            ["report_id"], ["reports.id"], name="fk_kernel_verdicts_report_id_reports"
        ),
    )


def downgrade() -> None:
    """Rows without a model stay: the older version reads them as having an empty name."""
    op.drop_table("kernel_verdicts")
    for table in _WITH_MODEL:
        op.execute(f"UPDATE {table} SET model = '' WHERE model IS NULL")
        with op.batch_alter_table(table, table_kwargs=_KEPT) as batch:
            batch.alter_column("model", existing_type=sa.String(100), nullable=False)
