"""Notices of the webhook: what nobody was told of yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("run", sa.String(128), nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("cause", sa.String(64)),
        sa.Column("confidence", sa.Float()),
        sa.Column("excess", sa.Float()),
        sa.Column("previous_verdict", sa.String(20)),
        sa.Column("previous_cause", sa.String(64)),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_notices")),
        sa.UniqueConstraint("id", name=op.f("uq_notices_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_notices_run"), "notices", ["run"])


def downgrade() -> None:
    op.drop_table("notices")
