"""`driftscope keys create|list|rotate|revoke`: the API keys of a data folder.

They work directly on the database, even while a service is running: anyone who may write to the
folder needs no key to create one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import RUN_PREFIX, KeyText, Scope, new_key
from driftscope_service.terminal.commands import Json
from driftscope_service.terminal.listing import print_list

if TYPE_CHECKING:
    from driftscope_service.auth.store import ApiKey
    from driftscope_service.store.database import Database

#: Ten years: an expiry further away is none.
MAX_EXPIRES_DAYS: Final = 3650
MAX_NAME_LENGTH: Final = 100
#: As in the settings, which the command line reads only where it needs them.
MOST_PER_MINUTE: Final = 1_000_000
MOST_AT_ONCE: Final = 10_000
DEFAULT_OVERLAP: Final = "24h"
#: A year: a key that is good for longer after its rotation has not been rotated.
MAX_OVERLAP: Final = timedelta(days=366)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_OVERLAP: Final = re.compile(r"(\d{1,6})([mhd])")

COLUMNS: Final = ("id", "name", "scopes", "runs", "state", "created", "expires", "last used")
app = typer.Typer(no_args_is_help=True)
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the service.", show_default="driftscope-data")
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Identifier, from `keys list`.")]


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
    run_prefix: Annotated[
        str | None,
        typer.Option(
            help="Bind it to the runs whose names begin so, as `team-a-`.", show_default="all runs"
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_PER_MINUTE, help="At most.", show_default="of the service"),
    ] = None,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_AT_ONCE, help="Requests at once at most.", show_default="of the service"
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key. It is printed once, alone on standard output, and cannot be shown again."""
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.auth.store import KeyRepository

    scopes = _scopes(scope)
    name = _checked_name(name)
    _check_prefix(run_prefix, scopes)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    text = new_key()
    with opened_database(data_dir, make=True) as database, database.write() as connection:
        KeyRepository(connection).add(
            text,
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            run_prefix=run_prefix,
            requests_per_minute=requests_per_minute,
            max_concurrent=max_concurrent,
        )
        AuditLog(connection).add(
            COMMAND_LINE,
            Action.KEY_CREATED,
            f"key {text.id}",
            name=name,
            scopes=", ".join(scopes),
            runs=run_prefix,
            expires_at=_time(expires_at),
            requests_per_minute=requests_per_minute,
            max_concurrent=max_concurrent,
        )
    _print_once(text, f"({', '.join(scopes)})")


@app.command("list")
def list_keys(
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Every key, without its secret."""
    from driftscope_service.auth.store import KeyRepository

    with opened_database(data_dir) as database, database.read() as connection:
        rows = [_row(key) for key in KeyRepository(connection).all()]
    if as_json:
        typer.echo(json.dumps({"keys": rows}, indent=2))
        return
    print_list(COLUMNS, map(_cells, rows))


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="How long the old key stays good: 30m, 24h, 7d; 0h ends it now.")
    ] = DEFAULT_OVERLAP,
    data_dir: DataDir = None,
) -> None:
    """Make a key that may do what another one may; that one ends after the overlap.

    The new key is printed once, alone on standard output. It has the name, scopes, limits and runs
    of the old one, and lasts as long from now as the old one did when it was made.
    """
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.auth.store import KeyRepository

    kept = _overlap(overlap)
    text, now = new_key(), datetime.now(UTC)
    with opened_database(data_dir) as database, database.write() as connection:
        keys = KeyRepository(connection)
        old = keys.get(key_id)
        if old is None:
            raise _no_such_key(key_id)
        _check_rotatable(old, now)
        keys.rotate(old, text, now=now, overlap=kept)
        ended = keys.get(old.id)
        assert ended is not None
        AuditLog(connection).add(
            COMMAND_LINE,
            Action.KEY_ROTATED,
            f"key {old.id}",
            into=text.id,
            expires_at=_time(ended.expires_at),
        )
    _print_once(text, f"in place of {old.id}, which ends at {_time(ended.expires_at)}")


@app.command()
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """End a key for good, in a running service as well: its next request is refused."""
    from driftscope_service.auth.audit import COMMAND_LINE, Action, AuditLog
    from driftscope_service.auth.sessions import SessionRepository
    from driftscope_service.auth.store import KeyRepository

    with opened_database(data_dir) as database, database.write() as connection:
        keys = KeyRepository(connection)
        key = keys.get(key_id)
        if key is None:
            raise _no_such_key(key_id)
        if key.revoked_at is None:  # else the first revocation stays
            keys.revoke(key_id)
            SessionRepository(connection).close_of_key(key_id)
            AuditLog(connection).add(
                COMMAND_LINE, Action.KEY_REVOKED, f"key {key_id}", name=key.name
            )
    typer.echo(f"key {key.id} ({key.name}) is revoked.")


@contextmanager
def opened_database(data_dir: Path | None, *, make: bool = False) -> Iterator[Database]:
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


def _print_once(text: KeyText, words: str) -> None:
    typer.echo(f"key {text.id} {words}; this is shown once:", err=True)
    typer.echo(text.token)


def _no_such_key(key_id: str) -> KeyCommandError:
    return KeyCommandError(
        f"there is no key {key_id[:80]!r}.",
        remedy="`driftscope keys list` shows the identifiers; the secret is not one.",
    )


def _check_rotatable(key: ApiKey, now: datetime) -> None:
    if key.replaced_by is not None:
        raise KeyCommandError(
            f"the key {key.id} has been rotated into {key.replaced_by} already.",
            remedy=f"rotate that one: driftscope keys rotate {key.replaced_by}.",
        )
    state = key.state(now)
    if state != "active":
        raise KeyCommandError(
            f"the key {key.id} is {state}.", remedy="make a new one with `driftscope keys create`."
        )


def _overlap(text: str) -> timedelta:
    found = _OVERLAP.fullmatch(text.strip())
    overlap = None if found is None else int(found[1]) * _UNITS[found[2]]
    if overlap is None or overlap > MAX_OVERLAP:
        raise KeyCommandError(
            f"the overlap {text[:80]!r} is not accepted.",
            remedy=f"give minutes, hours or days, as 30m, 24h or 7d; {MAX_OVERLAP.days}d at most.",
        )
    return overlap


def _check_prefix(prefix: str | None, scopes: Sequence[Scope]) -> None:
    if prefix is None:
        return
    if not RUN_PREFIX.fullmatch(prefix):
        raise KeyCommandError(
            f"the prefix {prefix[:80]!r} is not accepted: no name of a run begins so.",
            remedy="give letters, digits, dots, underscores or hyphens, beginning with a letter or "
            "digit, as `team-a-`.",
        )
    if Scope.PROBE in scopes:
        raise KeyCommandError(
            "a key that is bound to runs cannot have the scope probe: probes, their jobs and their "
            "reports are of the whole service.",
            remedy="leave out probe, or --run-prefix; or make a second key for probes.",
        )


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
        "run_prefix": key.run_prefix,
        "requests_per_minute": key.requests_per_minute,
        "max_concurrent": key.max_concurrent,
        "state": key.state(datetime.now(UTC)),
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
        "replaced_by": key.replaced_by,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = [row[name] or "-" for name in ("created_at", "expires_at", "last_used_at")]
    runs = "all" if row["run_prefix"] is None else f"{row['run_prefix']}*"
    state = row["state"]
    if row["replaced_by"] is not None:
        state += f", rotated into {row['replaced_by']}"
    return (row["id"], row["name"], ",".join(row["scopes"]), runs, state, *times)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
