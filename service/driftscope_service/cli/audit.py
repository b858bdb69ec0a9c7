"""`driftscope audit`: the audit log of a data folder, read directly from its database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from driftscope_service.cli.keys import DataDir, opened_database
from driftscope_service.terminal.commands import Json
from driftscope_service.terminal.listing import print_list

if TYPE_CHECKING:
    from driftscope_service.auth.audit_routes import AuditRow

COLUMNS: Final = ("at", "who", "action", "target", "detail", "request")
DEFAULT_ENTRIES: Final = 50
#: A page at a time keeps the memory small; more than this nobody reads in a terminal.
MOST_ENTRIES: Final = 100_000


def audit(
    last: Annotated[
        int, typer.Option(min=1, max=MOST_ENTRIES, help="How many entries, the newest.")
    ] = DEFAULT_ENTRIES,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Who created, revoked, deleted, cancelled or changed something; the newest first.

    It reads the database of the data folder, so that it needs no key and no running service.
    """
    # Here, since the other commands need no web framework and start faster without.
    from driftscope_service.auth.audit import AuditLog
    from driftscope_service.auth.audit_routes import AuditEntryBody, AuditRow

    with opened_database(data_dir) as database, database.read() as connection:
        entries = AuditLog(connection).page(last)
    if as_json:
        bodies: list[dict[str, Any]] = [
            AuditEntryBody.of(entry).model_dump(mode="json") for entry in entries
        ]
        typer.echo(json.dumps({"entries": bodies}, indent=2))
        return
    print_list(COLUMNS, [_cells(AuditRow.of(entry)) for entry in entries])


def _cells(row: AuditRow) -> tuple[str, ...]:
    at = row.at.isoformat(timespec="seconds")
    return (at, row.who, row.action, row.target, row.detail or "-", row.request_id or "-")
