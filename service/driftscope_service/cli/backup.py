"""`driftscope backup`, `driftscope restore` and `driftscope db`: the store as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftscope_probes.errors import ProbeError
from driftscope_probes.plural import counted
from driftscope_service.terminal.commands import Json
from driftscope_service.terminal.exits import FOUND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from driftscope_service.settings import Settings
    from driftscope_service.store.database import Database
    from driftscope_service.store.identity import Adoption
    from driftscope_service.store.storage.base import Storage

#: A file that is missing is named; a list of thousands says no more than their number.
MOST_NAMED = 10
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the service.", show_default="driftscope-data")
]


db_app = typer.Typer(no_args_is_help=True)


@db_app.callback()
def _db() -> None:
    """The service's database."""


@db_app.command()
def upgrade(
    data_dir: DataDir = None,
) -> None:
    """Migrate the database to this version's schema. `serve` does the same when it starts."""
    # Here, since the other commands do not need a database and start faster without.
    from driftscope_service.service import held_data_dir
    from driftscope_service.settings import load_settings
    from driftscope_service.store import migrate

    settings = load_settings(data_dir=data_dir)
    with held_data_dir(settings.data_dir):
        migrate.upgrade(settings.database)
    typer.echo(f"{settings.database} is at revision {migrate.newest_revision()}.")


class StoreCommandError(ProbeError):
    """The database of a data folder cannot be used by this command."""


def make(
    dest: Annotated[Path, typer.Argument(help="Folder for the backup: new, or empty.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy every row and every file that a row names, as of one moment, while the service runs.

    Exit code 1: the backup was made, but files that rows name were not in the storage.
    """
    # Here, since the other commands do not need a database and start faster without.
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.settings import load_settings
    from driftscope_service.store.backup import make_backup

    settings = load_settings(data_dir=data_dir)
    with _current(settings) as (database, storage):
        made = make_backup(database, storage, settings.data_dir, dest)
        with database.write() as connection:
            AuditLog(connection).add(
                COMMAND_LINE,
                Action.BACKUP_MADE,
                f"backup {dest}",
                files=made.files,
                size_bytes=made.size_bytes,
            )
    if as_json:
        said = {"files": made.files, "size_bytes": made.size_bytes, "missing": list(made.missing)}
        typer.echo(json.dumps({"folder": str(dest), "revision": made.revision, **said}))
    else:
        typer.echo(f"{counted(made.files, 'file')}, {made.size_bytes} bytes, in {dest}.")
    if made.missing:
        named = ", ".join(made.missing[:MOST_NAMED])
        typer.echo(
            f"driftscope: {counted(len(made.missing), 'file')} that rows name were not in the "
            f"storage, or not whole: {named}.",
            err=True,
        )
        raise typer.Exit(FOUND)


def restore(
    source: Annotated[Path, typer.Argument(help="Folder of a backup.")],
    data_dir: DataDir = None,
) -> None:
    """Put a backup into an empty database and an empty storage, which may be of another kind.

    Every file is checked first. Runs, reports and jobs keep their ids.
    """
    # Here, since the other commands do not need a database and start faster without.
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.jobs.claims import ClaimRepository
    from driftscope_service.service import held_data_dir
    from driftscope_service.settings import load_settings
    from driftscope_service.store import migrate
    from driftscope_service.store.backup_restore import restore as put_back
    from driftscope_service.store.database import Database
    from driftscope_service.store.storage.opening import open_storage

    def end_restored(connection: Connection) -> None:
        ClaimRepository(connection).end_restored()

    settings = load_settings(data_dir=data_dir)
    with held_data_dir(settings.data_dir):
        migrate.upgrade(settings.database)
        database = Database(settings.database)
        try:
            storage = open_storage(settings.storage_url, settings.data_dir)
            done = put_back(source, database, storage, settings.data_dir, end_restored)
            with database.write() as connection:
                AuditLog(connection).add(
                    COMMAND_LINE,
                    Action.BACKUP_RESTORED,
                    f"backup {source}",
                    made_at=done.manifest.made_at,
                    storage_id=done.storage_id,
                )
        finally:
            database.dispose()
    typer.echo(f"{counted(done.manifest.files, 'file')} of {source} in {settings.data_dir}.")


@db_app.command()
def adopt(
    missing: Annotated[
        int, typer.Option(min=0, help="Files that rows name and the storage lacks: so many.")
    ] = 0,
    unknown: Annotated[
        int,
        typer.Option(min=0, help="Files in the storage that no row names, to be removed: so many."),
    ] = 0,
    data_dir: DataDir = None,
) -> None:
    """State that the storage belongs to the database, after one of them was moved or replaced.

    Refused while a service uses them, and where files are missing or unknown unless their numbers
    are given. Another database that owned the storage is shut out by it.
    """
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.service import held_data_dir
    from driftscope_service.settings import load_settings
    from driftscope_service.store import identity

    settings = load_settings(data_dir=data_dir)
    with held_data_dir(settings.data_dir), _current(settings) as (database, storage):
        found = identity.adoption(database, storage)
        if (found.missing, found.unknown) != (missing, unknown):
            raise _other_numbers(found)
        given = identity.adopt(database, storage)
        with database.write() as connection:
            AuditLog(connection).add(
                COMMAND_LINE,
                Action.STORAGE_ADOPTED,
                f"storage {given}",
                files=found.named,
                missing=missing,
                unknown=unknown,
            )
    typer.echo(f"{storage} belongs to {database.dialect}: both have {given}.")


def _other_numbers(found: Adoption) -> StoreCommandError:
    return StoreCommandError(
        f"of {counted(found.named, 'file')} that rows name, {found.missing} are missing in the "
        f"storage; {counted(found.unknown, 'file')} there are named by no row.",
        remedy="if that is right, say so: driftscope db adopt "
        f"--missing {found.missing} --unknown {found.unknown}. Missing tokens and reports stay "
        "missing, and unknown files are removed after a day.",
    )


@contextmanager
def _current(settings: Settings) -> Iterator[tuple[Database, Storage]]:
    """Beside a service that may run; nothing is migrated."""
    from driftscope_service.store import migrate
    from driftscope_service.store.database import Database
    from driftscope_service.store.storage.opening import open_storage

    address = settings.database
    if isinstance(address, Path) and not address.is_file():
        raise StoreCommandError(
            f"there is no database in {settings.data_dir}.",
            remedy="give the --data-dir or the DRIFTSCOPE_DATABASE_URL of the service.",
        )
    if not migrate.is_current(address):
        raise StoreCommandError(
            f"{address} has another schema than this version of driftscope needs.",
            remedy="use the version that the service runs, or bring it to this one: "
            "driftscope db upgrade.",
        )
    database = Database(address)
    try:
        yield database, open_storage(settings.storage_url, settings.data_dir)
    finally:
        database.dispose()
