"""Counters of a run: steps that ever came in, and steps that were refused.

`complete_steps` is what the series holds from now on, so that it falls where an attempt goes back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ADDED = ("received_steps", "refused_steps")


def upgrade() -> None:
    for name in _ADDED:
        op.add_column(
            "runs", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"))
        )
    op.execute("UPDATE runs SET received_steps = complete_steps")


def downgrade() -> None:
    for name in _ADDED:
        op.drop_column("runs", name)
