"""Addresses of pages and of their data. What a page shows stands in its address, never elsewhere.

Convention: a parameter that has its default value is left out, so that one view has one address.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode


def with_query(path: str, **parameters: str | int | None) -> str:
    """Those that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def run_page(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"


def step_page(run: str, step: int) -> str:
    return f"{run_page(run)}/steps/{step}"
