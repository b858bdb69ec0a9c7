"""Jinja templates of the pages, strict and escaping, and the files that stand inside them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from driftscope_service.export.recorded_settings import flat


def page_environment() -> Environment:
    """A new one, for the caller to add filters to."""
    environment = Environment(
        loader=PackageLoader("driftscope_service.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["flat"] = flat
    return environment


@cache
def resource(*path: str) -> str:
    """Text of a file of the package."""
    return files("driftscope_service").joinpath(*path).read_text(encoding="utf-8")
