"""What a run may be called. The service accepts the same."""

from __future__ import annotations

import re

from driftscope_client.errors import DriftscopeError

RUN_VARIABLE = "DRIFTSCOPE_RUN"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked_run(run: str | None) -> str:
    """Raises DriftscopeError."""
    if run and RUN_NAME.fullmatch(run):
        return run
    given = f"the run name {run!r} is not accepted" if run else "there is no run name"
    raise DriftscopeError(
        f"{given}.",
        remedy=f"give run=… or {RUN_VARIABLE}: letters, digits, '.', '_' and '-', at most 128, "
        "the first a letter or a digit.",
    )
