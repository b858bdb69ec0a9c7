"""Verdict and first cause of a step; unknown for older steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("verdict", sa.JSON()))


def downgrade() -> None:
    op.drop_column("steps", "verdict")
