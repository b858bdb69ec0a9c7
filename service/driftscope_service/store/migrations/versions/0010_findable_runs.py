"""What runs are found by: tags, a note, a pinned baseline, and the answer of the last step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_RUNS = sa.table(
    "runs",
    *(sa.column(name) for name in ("number", "last_step", "verdict", "excess", "cause")),
    *(sa.column(name) for name in ("confidence", "crossed")),
)
_STEPS = sa.table(
    "steps",
    *(sa.column(name) for name in ("run_number", "step", "superseded_by")),
    sa.column("verdict", sa.JSON()),
    sa.column("crossed", sa.JSON()),
)


def upgrade() -> None:
    op.create_table(
        "run_tags",
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("run_number", "tag", name=op.f("pk_run_tags")),
        sa.ForeignKeyConstraint(
            ["run_number"], ["runs.number"], name=op.f("fk_run_tags_run_number_runs")
        ),
    )
    op.create_index(op.f("ix_run_tags_tag"), "run_tags", ["tag"])
    for column in (
        sa.Column("note", sa.String(4000)),
        sa.Column("pinned_at", sa.DateTime()),
        sa.Column("verdict", sa.String(20)),
        sa.Column("excess", sa.Float()),
        sa.Column("cause", sa.String(64)),
        sa.Column("confidence", sa.Float()),
        sa.Column("crossed", sa.Integer(), nullable=False, server_default=sa.text("0")),
    ):
        op.add_column("runs", column)
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    last = connection.execute(
        sa.select(_RUNS.c.number, _STEPS.c.verdict, _STEPS.c.crossed).join(
            _STEPS,
            sa.and_(
                _STEPS.c.run_number == _RUNS.c.number,
                _STEPS.c.step == _RUNS.c.last_step,
                _STEPS.c.superseded_by.is_(None),
            ),
        )
    ).all()
    for number, verdict, crossed in last:
        told = verdict or {}
        connection.execute(
            _RUNS.update()
            .where(_RUNS.c.number == number)
            .values(
                crossed=len(crossed),
                **{name: told.get(name) for name in ("verdict", "excess", "cause", "confidence")},
            )
        )


def downgrade() -> None:
    for name in ("crossed", "confidence", "cause", "excess", "verdict", "pinned_at", "note"):
        op.drop_column("runs", name)
    op.drop_table("run_tags")
