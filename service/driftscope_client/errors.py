"""Errors of the client, and the check of a run's name."""

from __future__ import annotations

import re


class DriftscopeError(Exception):
    """A step was not accepted. `status`: of the HTTP answer; None if there was none.

    `remedy` says what to do; str() includes it. `reason` is the cause in a few words, of a small
    set: failures are counted by it.
    """

    def __init__(
        self, message: str, *, remedy: str, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.status = status
        self.reason = reason or ("error" if status is None else f"HTTP {status}")

    def __str__(self) -> str:
        return f"{self.message}\nWhat to do: {self.remedy}"


class MalformedStep(DriftscopeError):
    """The tensors do not make up a step; nothing was sent."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy=remedy, reason="malformed tensors")


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
