"""Which runs a key may see and change: all, or those whose names begin with its prefix.

The guard asks `refusal` about every request of a bound key: an address that names a run out of
reach, or that is not known to be of runs, is closed to it, so that a new route is closed until it
is listed here. While the request is answered, `current` is its reach: what the store lists or finds
by name passes `visible`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, func, true

_OF_A_RUN: Final = re.compile(r"(?:/v1)?/runs/([^/]+)(?:/.*)?")
#: Lists that show what is `visible`, and what says nothing of any run.
_OPEN: Final = re.compile(
    r"/|(/v1)?/runs|/compare(/plots/[^/]+)?|/metrics"
    r"|/openapi\.json|/api|/docs(/.+)?|/causes(/[^/]+)?|/glossary|(/v1)?/lint"
)


@dataclass(frozen=True, slots=True)
class Reach:
    prefix: str | None = None  # None: every run

    def has(self, run: str) -> bool:
        return self.prefix is None or run.startswith(self.prefix)

    def visible(self, name: ColumnElement[Any]) -> ColumnElement[bool]:
        """The condition on a column of names. Not by LIKE, to which case does not matter on
        SQLite."""
        if self.prefix is None:
            return true()
        visible: ColumnElement[bool] = func.substr(name, 1, len(self.prefix)) == self.prefix
        return visible

    def refusal(self, path: str) -> str | None:
        """Why this path is closed; the same words whether the run exists or not."""
        if self.prefix is None or _OPEN.fullmatch(path):
            return None
        bound = f"the key is bound to runs whose names begin with {self.prefix!r}"
        of_a_run = _OF_A_RUN.fullmatch(path)
        if of_a_run is None:
            return f"{bound}; this is not about these runs alone"
        run = of_a_run[1]
        return None if self.has(run) else f"{bound}; {run[:128]!r} is not one of them"


EVERY_RUN: Final = Reach()
_current: ContextVar[Reach] = ContextVar("reach", default=EVERY_RUN)


def current() -> Reach:
    """Of the request that is being answered; every run outside of one."""
    return _current.get()


@contextmanager
def within(reach: Reach) -> Iterator[None]:
    token = _current.set(reach)
    try:
        yield
    finally:
        _current.reset(token)
