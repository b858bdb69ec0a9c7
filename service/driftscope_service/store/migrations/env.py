"""Alembic environment: runs on the connection that `store/migrate.py` hands over."""

from __future__ import annotations

from alembic import context

from driftscope_service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
    transactional_ddl=True,  # true for SQLite as well, since we emit BEGIN ourselves
)
context.run_migrations()
