"""Bring a database to the newest schema, and say whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from driftscope_probes.errors import ProbeError
from driftscope_service.store.database import Database, DatabaseAddress
from driftscope_service.store.instances import ALIVE_WITHIN_S, InstanceRepository

MIGRATIONS = Path(__file__).parent / "migrations"


class MigrationError(ProbeError):
    """The database file cannot be used by this version."""


def alembic_config() -> Config:
    config = Config()
    # configparser reads % as interpolation, and a folder may have one in its name.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(address: DatabaseAddress, revision: str = "head") -> None:
    """Create or migrate the database, all steps in one transaction. Raises MigrationError, also
    where a service works on another schema of it."""
    database = Database(address, foreign_keys=False, patient=True)
    try:
        with database.write() as connection:
            _upgrade(database, connection, revision)
    except CommandError as error:
        raise MigrationError(
            f"{database.dialect} cannot be migrated: {error}",
            remedy="it was probably written by a newer driftscope: use that version or newer, "
            "or another --data-dir.",
        ) from error
    except DatabaseError as error:
        raise MigrationError(
            f"{database.dialect} cannot be migrated: {error.orig}.",
            remedy="check that it is a database of driftscope, that it can be reached, and that "
            "its disk is writable and not full; nothing has been changed. Or give another "
            "--data-dir or DRIFTSCOPE_DATABASE_URL.",
        ) from error
    finally:
        database.dispose()


def _upgrade(database: Database, connection: Connection, revision: str) -> None:
    config = alembic_config()
    now = current_revision(connection)
    if now is not None and now != newest_revision():
        _check_unused(database, connection, now)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    broken = database.dialect.broken_references(connection)
    assert not broken, f"a migration broke {broken} references"


def _check_unused(database: Database, connection: Connection, revision: str) -> None:
    """A service would go on with the old meaning of its rows. This one keeps others from starting
    meanwhile: they wait for the transaction."""
    if not database.dialect.many_services:
        return  # the lock of the data folder is held
    instances = InstanceRepository(connection)
    alive = instances.alive() if instances.has_table() else []
    older = database.dialect.held_by_older(connection)
    if not alive and not older:
        return
    who = "; ".join(str(one) for one in alive) or "one of a version before the table of instances"
    raise MigrationError(
        f"{database.dialect} is at revision {revision}, and cannot be migrated to "
        f"{newest_revision()} while a driftscope service works on it: {who}.",
        remedy="stop every service on the database, then start those of this version. One that "
        f"was killed counts for {ALIVE_WITHIN_S:.0f} seconds.",
    )


def newest_revision() -> str:
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None
    return revision


def current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def is_current(address: DatabaseAddress) -> bool:
    """Whether the database has this version's schema; nothing is changed."""
    database = Database(address)
    try:
        with database.read() as connection:
            return current_revision(connection) == newest_revision()
    except DatabaseError as error:
        raise MigrationError(
            f"{database.dialect} cannot be read: {error.orig}.",
            remedy="check that it is a database of driftscope and can be reached, or give another "
            "--data-dir or DRIFTSCOPE_DATABASE_URL.",
        ) from error
    finally:
        database.dispose()
