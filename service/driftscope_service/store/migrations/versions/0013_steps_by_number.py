"""Steps and shards are found by their number, whichever attempt sent them."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TABLES = ("steps", "shards")


def upgrade() -> None:
    for table in _TABLES:
        op.create_index(op.f(f"ix_{table}_run_number_step"), table, ["run_number", "step"])


def downgrade() -> None:
    for table in _TABLES:
        op.drop_index(op.f(f"ix_{table}_run_number_step"), table)
