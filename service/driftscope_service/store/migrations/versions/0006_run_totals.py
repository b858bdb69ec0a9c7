"""Totals over the steps of a run in its own row: /metrics need not add up every step again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TOTALS = ("compared_tokens", "nonfinite_tokens", "confident_disagreements")
_RUNS = sa.table("runs", sa.column("number"), *(sa.column(name) for name in _TOTALS))
_STEPS = sa.table(
    "steps", sa.column("run_number"), sa.column("tokens"), sa.column("series", sa.JSON)
)


def upgrade() -> None:
    for name in _TOTALS:
        # The default is for rows that are there; SQLite adds no other column that is never null.
        op.add_column(
            "runs", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
    share = _STEPS.c.series["confident_disagreement_share"].as_float()
    sums = {
        "compared_tokens": _STEPS.c.tokens,
        "nonfinite_tokens": _STEPS.c.series["nonfinite_tokens"].as_float(),
        # The series has the share alone; times its tokens it is a whole number again.
        "confident_disagreements": sa.func.round(share * _STEPS.c.tokens),
    }
    op.execute(_RUNS.update().values({name: _sum(value) for name, value in sums.items()}))


def _sum(value: sa.ColumnElement[float]) -> sa.ScalarSelect[int]:
    whole = sa.cast(sa.func.coalesce(sa.func.sum(value), 0), sa.BigInteger)
    return sa.select(whole).where(_STEPS.c.run_number == _RUNS.c.number).scalar_subquery()


def downgrade() -> None:
    for name in _TOTALS:
        op.drop_column("runs", name)
