"""When a run was said to have ended; unknown for older runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("finished_at", sa.DateTime()))


def downgrade() -> None:
    op.drop_column("runs", "finished_at")
