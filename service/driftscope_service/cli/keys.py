"""`driftscope keys create|list|revoke`: the API keys of a data folder.

They work directly on the database, even while a service is running: anyone who may write to the
folder needs no key to create one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import Scope, new_key
from driftscope_service.terminal.commands import Json
from driftscope_service.terminal.listing import print_list

if TYPE_CHECKING:
    from driftscope_service.auth.store import ApiKey
    from driftscope_service.store.database import Database

#: Ten years: an expiry further away is none.
MAX_EXPIRES_DAYS: Final = 3650
MAX_NAME_LENGTH: Final = 100

COLUMNS: Final = ("id", "name", "scopes", "state", "created", "expires", "last used")
app = typer.Typer(no_args_is_help=True)
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the service.", show_default="driftscope-data")
]


class KeyCommandError(ProbeError):
    """A key cannot be made or found."""


@app.callback()
def _keys() -> None:
    """API keys: who may call the service, and for what."""


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who or what will use it.")],
    scope: Annotated[
        str, typer.Option(help=f"Of {', '.join(Scope)}; several with commas between.")
    ],
    expires_days: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_EXPIRES_DAYS, help="Days it is good for.", show_default="ever"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key. It is printed once, alone on standard output, and cannot be shown again."""
    from driftscope_service.auth.store import KeyRepository

    scopes = _scopes(scope)
    name = _checked_name(name)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    text = new_key()
    with _database(data_dir, make=True) as database, database.write() as connection:
        KeyRepository(connection).add(text, name=name, scopes=scopes, expires_at=expires_at)
    typer.echo(f"key {text.id} ({', '.join(scopes)}); this is shown once:", err=True)
    typer.echo(text.token)


@app.command("list")
def list_keys(
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Every key, without its secret."""
    from driftscope_service.auth.store import KeyRepository

    with _database(data_dir) as database, database.read() as connection:
        rows = [_row(key) for key in KeyRepository(connection).all()]
    if as_json:
        typer.echo(json.dumps({"keys": rows}, indent=2))
        return
    print_list(COLUMNS, map(_cells, rows))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Identifier, from `keys list`.")],
    data_dir: DataDir = None,
) -> None:
    """End a key for good, in a running service as well: its next request is refused."""
    from driftscope_service.auth.store import KeyRepository

    with _database(data_dir) as database, database.write() as connection:
        key = KeyRepository(connection).revoke(key_id)
    if key is None:
        raise KeyCommandError(
            f"there is no key {key_id[:80]!r}.",
            remedy="`driftscope keys list` shows the identifiers; the secret is not one.",
        )
    typer.echo(f"key {key.id} ({key.name}) is revoked.")


@contextmanager
def _database(data_dir: Path | None, *, make: bool = False) -> Iterator[Database]:
    """The database of the folder at the newest schema; a service may be running on it."""
    # Here, since the other commands do not need a database and start faster without.
    from driftscope_service.service import held_data_dir
    from driftscope_service.settings import load_settings
    from driftscope_service.store import migrate
    from driftscope_service.store.database import Database

    settings = load_settings(data_dir=data_dir)
    address = settings.database
    missing = isinstance(address, Path) and not address.is_file()
    if missing and not make:
        raise KeyCommandError(
            f"there is no database in {settings.data_dir}, so there are no keys.",
            remedy="give the --data-dir of the service.",
        )
    if missing or not migrate.is_current(address):
        with held_data_dir(settings.data_dir):
            migrate.upgrade(address)
    database = Database(address)
    try:
        yield database
    finally:
        database.dispose()


def _scopes(text: str) -> list[Scope]:
    try:
        return sorted({Scope(part.strip()) for part in text.split(",")})
    except ValueError as error:
        raise KeyCommandError(
            f"{error}.", remedy=f"give one or more of {', '.join(Scope)}, with commas between."
        ) from None


def _checked_name(name: str) -> str:
    name = name.strip()
    if 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable():
        return name
    raise KeyCommandError(
        f"the name {name[:80]!r} is not accepted.",
        remedy=f"give 1 to {MAX_NAME_LENGTH} printable characters.",
    )


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "state": key.state(datetime.now(UTC)),
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = [row[name] or "-" for name in ("created_at", "expires_at", "last_used_at")]
    return (row["id"], row["name"], ",".join(row["scopes"]), row["state"], *times)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
