"""Where a report was made, and its content, by which one that arrives again is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reports", sa.Column("origin", sa.JSON()))
    op.add_column("reports", sa.Column("content_sha256", sa.String(64)))
    op.create_index("ix_reports_content_sha256", "reports", ["content_sha256"])


def downgrade() -> None:
    op.drop_index("ix_reports_content_sha256", "reports")
    op.drop_column("reports", "content_sha256")
    op.drop_column("reports", "origin")
