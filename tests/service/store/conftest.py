"""Every database system that the store runs on: SQLite files and a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from driftscope_service.store import migrate
from driftscope_service.store.database import Database, DatabaseAddress


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseAddress:
    if request.param == "sqlite":
        return tmp_path / "test.db"
    url: URL = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def database(address: DatabaseAddress) -> Iterator[Database]:
    """At the newest schema, without rows."""
    migrate.upgrade(address)
    database = Database(address)
    yield database
    database.dispose()
