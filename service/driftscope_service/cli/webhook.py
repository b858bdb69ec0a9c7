"""`driftscope webhook test`: one signed notice to the address of the settings, and what came of it.

It is made up and says so: an operator need not wait for a bug to see that a receiver takes it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import typer

from driftscope_probes.errors import RequestError
from driftscope_service.terminal.exits import FOUND

app = typer.Typer(no_args_is_help=True)

#: No run has it: names of runs that people choose say what is trained.
RUN: Final = "webhook-test"


@app.callback()
def _webhook() -> None:
    """The webhook that DRIFTSCOPE_WEBHOOK_URL sets."""


@app.command("test")
def send_test() -> None:
    """Send a made-up notice, once, as the service would; exit 1 where it is not taken."""
    # Here, since the other commands do not need a web framework and start faster without.
    from driftscope_service.runs.webhook.body import webhook_of
    from driftscope_service.runs.webhook.notices import Notice
    from driftscope_service.runs.webhook.post import posted
    from driftscope_service.settings import load_settings
    from driftscope_service.store.tables import new_id

    webhook = webhook_of(load_settings())
    if webhook is None:
        raise RequestError(
            "no webhook is set.", remedy="set DRIFTSCOPE_WEBHOOK_URL; see docs/webhook.md."
        )
    notice = Notice(
        number=0,
        id=new_id("notice"),
        run=RUN,
        model=None,
        step=0,
        verdict="bug_like",
        cause="unexplained",
        confidence=None,
        excess=None,
        previous_verdict="at_floor",
        previous_cause=None,
        created_at=datetime.now(UTC),
        attempts=1,
        not_before=None,
    )
    refused = asyncio.run(posted(notice, webhook))
    if refused is not None:
        typer.echo(f"not taken: {refused.words}", err=True)
        raise typer.Exit(FOUND)
    typer.echo(f"taken: {notice.id}, of a run {RUN} that does not exist")
