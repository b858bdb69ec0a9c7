"""`driftscope db upgrade`."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from driftscope_service.cli.backup import db_app
from driftscope_service.service import DataDirError, open_service
from driftscope_service.settings import Settings
from driftscope_service.store import migrate
from driftscope_service.store.database import Database


def upgrade(settings: Settings) -> Any:
    return CliRunner().invoke(db_app, ["upgrade", "--data-dir", str(settings.data_dir)])


def test_a_new_folder_gets_the_newest_schema(make_settings: Any) -> None:
    settings = make_settings()
    done = upgrade(settings)
    assert done.exit_code == 0
    assert migrate.newest_revision() in done.stdout
    database = Database(settings.data_dir / "driftscope.db")
    with database.read() as connection:
        assert migrate.current_revision(connection) == migrate.newest_revision()
    database.dispose()
    assert upgrade(settings).exit_code == 0


def test_not_under_a_running_service(make_settings: Any) -> None:
    settings = make_settings()
    with open_service(settings):
        done = upgrade(settings)
    assert isinstance(done.exception, DataDirError)


@pytest.mark.parametrize("arguments", [["--help"], ["upgrade", "--help"]])
def test_help(arguments: list[str]) -> None:
    assert CliRunner().invoke(db_app, arguments).exit_code == 0
