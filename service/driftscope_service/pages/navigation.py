"""The navigation that stands on every page, and the addresses of pages."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Section:
    key: str  # what a page gives as `section`
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Crumb:
    """A page above this one."""

    label: str
    path: str


def with_query(path: str, **parameters: str | int | None) -> str:
    """Those that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def run_page(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"


def attempt_page(run: str, attempt: int | None) -> str:
    """The page of a run as one of its attempts left it; None: as it is now."""
    return run_page(run) if attempt is None else f"{run_page(run)}/attempts/{attempt}"


def step_page(run: str, step: int, attempt: int | None = None) -> str:
    return f"{attempt_page(run, attempt)}/steps/{step}"
